"""Words that deny and words that stand against each other. Data only; lower case, plain form, English."""

from __future__ import annotations

from stratarouter_runtime.cache.lexicon import words_in


def _pairs(text: str) -> dict[str, frozenset[str]]:
    """Each word to its opposites: a line is ``words / words``, every word on one side against all of the other."""
    table: dict[str, set[str]] = {}
    for line in text.strip().splitlines():
        left, right = (side.split() for side in line.split("/"))
        for ours, theirs in ((left, right), (right, left)):
            for word in ours:
                table.setdefault(word, set()).update(theirs)
    return {word: frozenset(words) for word, words in table.items()}


NEGATIONS = frozenset(
    words_in("not no never cannot neither nor none nobody nothing nowhere without unable dont cant non")
)

FAULTS = frozenset(
    words_in("""
avoid bad block blocked blocks broken canceled cancelled decline declined declines declining delayed denied deny
difficult difficulty error errors except fail failed failing fails failure fault faulty forget forgot forgotten free
illegal impossible inaccurate incorrect incorrectly ineligible invalid issue issues lack lacks late less lost missing
pending prevent problem problems refusal refuse refused refuses reject rejected rejection rejects reverted stolen stop
stopped stops stuck trouble unable unavailable unsuccessful wrong
""")
)
"""Words that say by themselves that something is not so: a text may have one where another denies."""

OPPOSITES = _pairs("""
enable activate allow permit / disable deactivate forbid prohibit block deny prevent
on / off
before prior / after following
with / without
including include / excluding exclude except
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
all every each everyone everything / some any most few several either
both / either neither
all every each both / one single
always / sometimes usually often never rarely seldom occasionally
too / enough
required mandatory compulsory obligatory / allowed optional voluntary
much many / little few
join merge combine / split separate
archive / restore unarchive
checkin / checkout
zoomin / zoomout
optin / optout
upgrade / downgrade
formal / informal casual
loud noisy / quiet silent
dark / light bright
urban / rural
child kid children kids / adult adults
beginner / expert advanced
permanent / temporary
minor / major
employer / employee
landlord / tenant
lender lend / borrower borrow
arrive arrival / depart departure leave
entry enter entrance / exit
deposit / withdraw withdrawal
present / absent
solid / liquid
wet / dry
loose / tight
thick / thin
mild / severe
sweet / sour bitter
raw / cooked
alive living / dead
birth born / death died die
ancient / modern
multiply / divide
prefix / suffix
header / footer
producer / consumer
primary / secondary
inflation / deflation
forward forwards / backward backwards
clockwise / counterclockwise anticlockwise
hardware / software
manual manually / automatic automatically
wired / wireless
hire / fire
gross / net
plus / minus
until till / after since
since / until before
instead / also
nearest closest / farthest furthest
guilty / innocent
polite / angry rude
online / offline
premium / basic
""")

DENYING_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis", "de", "anti")
"""Before a word they make its opposite: "formal", "informal"."""
