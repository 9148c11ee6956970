"""The closed lists of words that the guard knows: numbers, units, dates, opposites, synonyms, categories. Data only.

Words stand in lower case and in their plain form; ``features`` brings texts to the same form. English, as the guard is.
"""

from __future__ import annotations

from fractions import Fraction


def _groups(text: str) -> dict[str, str]:
    """Each word of a line to the line's first word."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {word: line[0] for line in lines for word in line}


def words_in(text: str) -> list[str]:
    """The words of a list."""
    return text.split()


def grouped(text: str) -> dict[str, frozenset[str]]:
    """Each word of a list of groups, with a slash between them, to the words of all its groups, itself among them.

    A word that stands in no company is left out.
    """
    found: dict[str, set[str]] = {}
    for group in text.split("/"):
        words = words_in(group)
        for word in words:
            found.setdefault(word, set()).update(words)
    return {word: frozenset(words) for word, words in found.items() if len(words) > 1}


_SMALL = words_in(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = words_in("twenty thirty forty fifty sixty seventy eighty ninety")
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
SCALE_UNITS = dict.fromkeys(words_in("decade decades century centuries"), "year")
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
        words_in("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"), start=1
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
DATES_ONLY_IN_CAPITALS = frozenset(words_in("march mar may jan dec mon wed sat sun"))
"""Words that name a date only where they begin with a capital."""
PERIODS = frozenset(words_in("week weekend month quarter year season semester decade century"))
PERIOD_PLACES = {"next": "next", "following": "next"} | dict.fromkeys(words_in("last past previous prior"), "last")
"""Before a period they say which one: "next month"."""
RELATIVE_DAYS = frozenset(words_in("today tomorrow yesterday tonight"))

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
am a.m
pm p.m
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


SYNONYMS = _groups("""
remove delete erase eliminate drop
make create build construct generate craft
fix repair solve resolve troubleshoot mend
show display view see
get obtain fetch retrieve acquire receive
find locate search lookup discover
buy purchase
price cost fee charge priced expense
start begin commence launch
stop end finish quit halt terminate
big large huge
parcel package packet
booking reservation
person human people
gift present
client customer
father dad daddy
mother mum mom mummy mommy
holiday vacation
apartment flat
taxi cab
refrigerator fridge
sofa couch
lawyer attorney solicitor
plane airplane aeroplane aircraft
bicycle bike
television tv telly
shop store
elevator lift
garbage trash rubbish waste
trousers pants
clever smart intelligent
author writer
rip tear
compress zip
dangerous hazardous unsafe
allowed permitted
tired exhausted
scared afraid frightened
sad unhappy
angry mad
beautiful pretty
luggage baggage
postcode zipcode
inexpensive cheap affordable
clothes clothing
small little tiny
error bug issue problem fault broken failing
function method
explain describe clarify explanation
use utilise utilize using usage redeem
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
check verify test validate verified verification verifying
under below beneath underneath
main primary major chief
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
current latest now today currently
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
node nodejs
react reactjs
vue vuejs
angular angularjs
typescript ts
kubernetes k8s
postgresql postgres
bitcoin btc
ethereum eth
regex regexp regexes
command cmd
message msg
approximately approx roughly
miscellaneous misc
development dev
production prod
reference ref
attribute attr
character char
boolean bool
executable exe
asynchronous async
synchronous sync
identifier id
certificate cert certs
credentials creds
permission perm perms
examination exam exams
advertisement advert
limousine limo
memorandum memo
influenza flu
gymnasium gym
veterinarian vet vets
rhinoceros rhino
hippopotamus hippo
business biz
dictionary dict
string str
integer int
variable var
parameter param params
argument args
temperature temp
department dept
government govt
university uni
professor prof
enable activate activation
disable deactivate deactivation
france french
germany german
spain spanish
italy italian
china chinese
japan japanese
russia russian
usa us america american
uk britain british
""")
