"""The closed lists of words that the guard knows: numbers, units, dates, opposites, synonyms, categories. Data only.

Words stand in lower case and in their plain form; ``features`` brings texts to the same form. English, as the guard is.
"""

from __future__ import annotations

from fractions import Fraction


def _groups(text: str) -> dict[str, str]:
    """Each word of a line to the line's first word."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {word: line[0] for line in lines for word in line}


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, frozenset[str]]:
    """Each word to its opposites: a line is ``words / words``, every word on one side against all of the other."""
    table: dict[str, set[str]] = {}
    for line in text.strip().splitlines():
        left, right = (side.split() for side in line.split("/"))
        for ours, theirs in ((left, right), (right, left)):
            for word in ours:
                table.setdefault(word, set()).update(theirs)
    return {word: frozenset(words) for word, words in table.items()}


_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
CARDINALS = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12} | {
    "dozens": 12,
    "decade": 10,
    "decades": 10,
    "century": 100,
    "centuries": 100,
}
SCALE_UNITS = dict.fromkeys(_words("decade decades century centuries"), "year")
SUFFIX_SCALES = {"k": 1000, "bn": 10**9, "mn": 10**6}
MULTIPLES = {
    "once": 1,
    "twice": 2,
    "thrice": 3,
    "double": 2,
    "doubled": 2,
    "triple": 3,
    "tripled": 3,
    "quadruple": 4,
} | {
    "doubles": 2,
    "doubling": 2,
    "triples": 3,
    "tripling": 3,
    "quadrupled": 4,
}
PARTS = {
    name: Fraction(1, value)
    for value, names in {
        2: "half halve halves halved",
        3: "third thirds",
        4: "quarter quarters fourth fourths",
        5: "fifth fifths",
        6: "sixth sixths",
        7: "seventh sevenths",
        8: "eighth eighths",
        9: "ninth ninths",
        10: "tenth tenths",
    }.items()
    for name in names.split()
}
ORDINALS = {
    word: value
    for value, word in enumerate(
        _words("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"), start=1
    )
}

MONTHS = _groups("""
january jan
february feb
march mar
april apr
may
june jun
july jul
august aug
september sep sept
october oct
november nov
december dec
""")
WEEKDAYS = _groups("""
monday mon mondays
tuesday tue tues tuesdays
wednesday wed wednesdays
thursday thu thur thurs thursdays
friday fri fridays
saturday sat saturdays
sunday sun sundays
""")
DATES_ONLY_IN_CAPITALS = frozenset(_words("march mar may jan dec mon wed sat sun"))
"""Words that name a date only where they begin with a capital."""
PERIODS = frozenset(_words("week weekend month quarter year season semester decade century"))
PERIOD_PLACES = frozenset(_words("next last past previous"))
"""Before a period they say which one: "next month"."""
RELATIVE_DAYS = frozenset(_words("today tomorrow yesterday tonight"))

UNITS = _groups("""
percent % pct percentage
dollar dollars usd $
euro euros eur €
pound-sterling gbp £ quid
yen jpy ¥
rupee rupees inr ₹
cent cents
kilometre kilometres kilometer kilometers km kms
metre metres meter meters
centimetre centimetres centimeter centimeters cm
millimetre millimetres millimeter millimeters mm
mile miles mi
inch inches
foot feet ft
yard yards yd yds
kilogram kilograms kg kgs kilo kilos
gram grams gramme grammes
milligram milligrams mg
pound pounds lb lbs
ounce ounces oz
ton tons
tonne tonnes
litre litres liter liters
millilitre millilitres milliliter milliliters ml
gallon gallons gal
second seconds sec secs
millisecond milliseconds ms
minute minutes min mins
hour hours hr hrs
day days
week weeks
month months
year years yr yrs
kilobyte kilobytes kb
megabyte megabytes mb
gigabyte gigabytes gb
terabyte terabytes tb
celsius c °c
fahrenheit f °f
kelvin
watt watts
kilowatt kilowatts kw
degree degrees °
""")
UNITS_BY_CASE = {
    "Mb": "megabit",
    "Gb": "gigabit",
    "Kb": "kilobit",
    "mW": "milliwatt",
    "MW": "megawatt",
    "mA": "milliampere",
    "m": "metre",
    "g": "gram",
    "L": "litre",
    "l": "litre",
}
"""Units that their letters' case tells apart, and single letters that are a unit only as written here."""

NEGATIONS = frozenset(_words("not no never cannot neither nor none nobody nothing nowhere without unable dont cant"))

OPPOSITES = _pairs("""
enable activate allow permit / disable deactivate forbid prohibit block deny prevent
on / off
before prior / after following
with / without
including include / excluding exclude
increase raise grow rise boost maximize gain more / decrease reduce lower drop fall shrink minimize lose less
more most / fewer fewest least
add append insert attach / remove delete subtract detach
open / close shut closed
start begin launch / stop end finish halt
first / last
next / previous last
newest latest new recent newer / oldest old earliest older
ascending / descending reverse
largest biggest highest max maximum longest tallest most greatest / smallest lowest min minimum shortest least
large big high / small little low
above over / below under
up / down
upload / download
import / export
buy purchase / sell
send / receive
push / pull
encode / decode
encrypt / decrypt
compress zip / decompress unzip extract
serialize / deserialize
lock / unlock
mount / unmount
install / uninstall
connect / disconnect
subscribe / unsubscribe
follow / unfollow
mute / unmute
hide / show unhide
accept approve / reject decline refuse
login signin / logout signout
read / write
input / output
client / server
frontend / backend
public / private
internal / external
local / remote
global / local
static / dynamic
synchronous sync / asynchronous async
mutable / immutable
positive / negative
true / false
yes / no
good best better pro pros advantage benefit / bad worst worse con cons disadvantage drawback
safe / unsafe dangerous
legal / illegal
possible / impossible
valid / invalid
male man men boy father husband son brother king / female woman women girl mother wife daughter sister queen
hot warm / cold cool
win / lose
pass succeed success / fail failure
love like / hate dislike
married / divorced single
left / right
north northern / south southern
east eastern / west western
front / back
inside indoor / outside outdoor
inner / outer
top / bottom
horizontal / vertical
row / column
early / late
day / night
morning / evening
summer / winter
spring / autumn fall
domestic / international
even / odd
list / count
always / never
all every / none
same / different
cheap cheapest / expensive
free / paid
fast faster quick / slow slower
easy / hard difficult
strong / weak
full / empty
old / young
long / short
deep / shallow
wide / narrow
heavy / light
rich / poor
singular / plural
uppercase / lowercase
parent / child
supply / demand
credit / debit
profit / loss
cause / effect
symptom / treatment
acid / base
""")

SYNONYMS = _groups("""
remove delete erase eliminate drop
make create build construct generate craft
fix repair solve resolve troubleshoot
show display view see
get obtain fetch retrieve acquire receive
find locate search lookup discover
buy purchase
price cost fee charge priced
start begin commence launch
stop end finish quit halt terminate
big large huge
small little tiny
error bug issue problem fault broken failing
function method
explain describe clarify explanation
use utilise utilize employ using usage
change modify alter edit update
fast quick rapid quickly speedy
picture image photo
film movie
car automobile vehicle
doctor physician
child kid
phone cellphone smartphone mobile
install setup
convert transform turn
check verify test validate
main primary key major chief
reason cause
way method approach
list enumerate
write compose author
help assist aid
cook prepare
reset restore
learn study
improve enhance boost better
difference distinction differ contrast compare comparison vs versus
example sample
current latest now present today currently
definition define meaning mean
wound injury
amount quantity
corporation corp
incorporated inc
documentation docs doc
configuration config configure
repository repo
database db dbs databases
authentication auth
administrator admin
environment env
directory dir
statistics stats
photograph photo
mathematics maths math
laboratory lab
advertisement ad
vocabulary vocab
specification spec
average avg
maximum max
minimum min
annual yearly
daily everyday
weekly
job work occupation
company firm business
salary wage pay
city town
address location
combine concatenate
duplicate copy
run execute
choose select pick
lower reduce decrease cut
near close nearby
sick ill
email e-mail mail emails
site website webpage
app application
password passcode
account profile
top best
near-by closest nearest
version release
javascript js
typescript ts
kubernetes k8s
postgresql postgres
france french
germany german
spain spanish
italy italian
china chinese
japan japanese
russia russian
usa us america american states
uk britain british
""")

FILLERS = frozenset(
    _words(
        "please can could would will shall should do does did is are was were be been being am a an the of to in "
        "on at for by from with into as and or if then than that this these those it its i me my we our you your "
        "he she they them their his her what which who whom whose when where why how there here have has had any "
        "some just also so such tell explain show give want need like know help let us get way ways best exactly "
        "top recommended recommendation "
        "recommendations tip tips advice really actually simply simple quick "
        "quickly easily properly correctly tutorial guide example examples "
        "step steps using use possible hey hi hello thanks thank about regarding called named name total all each "
        "even ever well going additional important good great nice successfully effectively nowadays someone "
        "somebody anyone anybody self myself yourself truly certain various most recommend suggest suggestion "
        "suggestions "
        "every per one ok find search list compute describe definition define meaning mean question answer "
        "information info detail details "
    )
)
"""Words that carry no content of their own: their coming and going changes no answer."""

REDUNDANT = frozenset(
    _words(
        "city country state language programming program code function method command number value "
        "convert conversion easy easily easiest thing kind type sort list user new time place common popular "
        "favourite favorite "
        "available recent recently latest option idea suggestion overview explanation introduction basics "
        "process procedure current currently person people world whole entire own main general "
        "year app application website site online"
    )
)
"""Words that a paraphrase adds beside a name they describe: "the capital (city) of Canada"."""

CATEGORIES: dict[str, str] = {
    word: category
    for category, words in {
        "country": "afghanistan argentina australia austria bangladesh belgium brazil bulgaria canada chile china "
        "colombia croatia cuba denmark egypt england ethiopia finland france germany ghana greece hungary iceland "
        "india indonesia iran iraq ireland israel italy jamaica japan jordan kenya korea kuwait lebanon libya "
        "malaysia mexico morocco nepal netherlands nigeria norway pakistan peru philippines poland portugal qatar "
        "romania russia scotland serbia singapore slovakia slovenia somalia spain sudan sweden switzerland syria "
        "taiwan thailand tunisia turkey uganda ukraine usa uk venezuela vietnam wales yemen zimbabwe",
        "city": "amsterdam athens atlanta austin bangkok barcelona beijing berlin boston brussels budapest cairo "
        "chicago dallas delhi denver detroit dubai dublin houston istanbul jakarta london madrid manchester miami "
        "milan moscow mumbai munich oslo paris philadelphia phoenix prague rome seattle seoul shanghai stockholm "
        "sydney tokyo toronto vancouver venice vienna warsaw zurich",
        "tongue": "arabic bengali chinese danish dutch english finnish french german greek hebrew hindi hungarian "
        "italian japanese korean latin mandarin norwegian polish portuguese russian spanish swedish thai turkish "
        "ukrainian urdu vietnamese",
        "format": "csv json xml yaml toml html pdf markdown docx xlsx png jpeg jpg gif svg mp3 mp4 plaintext",
        "scale": "celsius fahrenheit kelvin °c °f",
        "currency": "dollar dollars usd euro euros eur gbp yen jpy rupee rupees inr yuan franc francs peso pesos",
        "forge": "github gitlab bitbucket",
        "code": "python java javascript typescript ruby php perl scala kotlin swift golang rust haskell lua matlab "
        "julia cobol fortran clojure elixir erlang bash powershell sql css c++ c# f# r",
        "system": "windows linux macos mac ubuntu debian fedora centos android ios",
        "database": "mysql postgresql postgres sqlite mongodb redis oracle cassandra mariadb dynamodb",
        "cloud": "aws azure gcp heroku digitalocean",
        "framework": "react angular vue svelte django flask fastapi rails laravel express nextjs pytorch "
        "tensorflow keras pandas numpy",
        "browser": "chrome firefox safari edge opera",
        "colour": "red green blue yellow black white purple pink brown grey gray",
        "planet": "mercury venus mars jupiter saturn uranus neptune pluto",
        "brand": "apple samsung google microsoft amazon tesla ford toyota honda nissan bmw facebook meta twitter "
        "instagram whatsapp netflix spotify uber paypal visa mastercard intel amd nvidia sony dell lenovo "
        "huawei xiaomi",
        "continent": "europe asia africa antarctica oceania",
        "sport": "football soccer basketball baseball tennis cricket rugby hockey golf volleyball",
        "instrument": "guitar piano violin drums flute cello saxophone trumpet ukulele",
        "metal": "gold silver copper iron platinum aluminium aluminum",
        "season": "spring summer autumn winter",
        "meal": "breakfast lunch dinner",
        "animal": "dog cat horse cow pig chicken fish bird rabbit hamster",
    }.items()
    for word in words.split()
}

DENYING_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis", "de", "anti")
"""Before a word they make its opposite: "formal", "informal"."""
