"""Folds what is said in several words, or in short ones, into one form: "get rid of", "would you mind", "dont". Pure.

A line of the list is ``phrase / phrase > words``; nothing behind the arrow: the phrase asks for nothing by itself.
A phrase stands for its words wherever it stands, so only such are listed that mean one thing. English.
"""

from __future__ import annotations

from collections.abc import Sequence

from stratarouter_runtime.cache.quantities import Token

_LIST = """
i was wondering / i am wondering / i wonder / just wondering / would you mind / do you mind / mind telling me >
do you know / does anyone know / does anybody know / may i ask / can i ask you to / can i ask / could i ask >
i would be glad if / i would be happy if / can somebody tell me >
any idea / any ideas / do you happen to know / any chance >
sorry to bother you / excuse me / sorry to ask / quick question / just curious / out of curiosity / i am curious >
thanks in advance / thank you very much / thank you so much / thanks a lot / thank you / many thanks >
greetings / dear team >
i would appreciate it if / i would be grateful if / would appreciate / much appreciated / if you do not mind >
if possible / if you can / whether or not / as well / by the way / in order / at all / i hope >
i don't understand / i do not understand / don't understand / i don't know / i do not know / don't know >
i have no idea / no idea / i am not sure / not sure / can't figure out / i can't figure out / do not understand >
learn how to / teach me how to / show me how to / teach me to > how to
i want to / i want / i wanna / i would love to / i would like to / i am trying to / im trying to >
i am looking to >
i plan to / i am planning to / i intend to / trying to / looking to / i am looking for / i need / we need >
is there a way to / is there any way to / is it possible to / what is the best way to > how can i
how do i go about / what do i need to do to / what do i have to do to / what should i do to / ways to > how can i
whats > what is
hows > how is
wheres > where is
whos > who is
im / i'm > i am
dont > don't
doesnt > doesn't
didnt > didn't
cant > can't
couldnt > couldn't
wont > won't
isnt > isn't
arent > aren't
wasnt > wasn't
havent > haven't
hasnt > hasn't
shouldnt > shouldn't
wouldnt > wouldn't
can't find / cannot find / could not find / couldn't find / can't locate / cannot locate / can't see > find
unable to find / not able to find > find
how soon / how long until / how long before > when
u > you
ur / youre > your
pls / plz > please
thx / ty > thanks
wanna > want to
gonna > will
gotta > have to
able to > can
unable to / not able to > can't
how come / for what reason > why
what is the reason why / what is the reason that / what is the reason for / what is the reason / reason why > why
the reason > why
what time / at what time / on what date / on which date / in what year / in which year / what year > when
which year > when
in what place / at what place / in which place / whereabouts > where
which person / what person > who
how many people live in / how many people live / how many inhabitants > what population
how much time / how many minutes / how many hours > how long
what does it mean / what is meant by > what meaning
get rid of > remove
turn on / switch on / switched on / turned on / power on / turning on / switching on > enable
turn off / switch off / switched off / turned off / power off / turning off / switching off > disable
log in / log on / sign in / logging in / signing in / logged in / signed in > login
log out / log off / sign out / logging out / signing out / logged out / signed out > logout
sign up / signing up / signed up > register
set up / setting up > setup
shut down / shuts down / shutting down > shutdown
back up / backing up > backup
check in / checking in / checked in > checkin
check out of / checking out of > checkout
zoom in / zooming in > zoomin
zoom out / zooming out > zoomout
opt in > optin
opt out > optout
top up / topping up / topped up / top ups / top-up / top-ups / topups > topup
go through / going through / gone through / went through > complete
show up / showing up / shows up / showed up > appear
get in touch with / reach out to / speak to / speak with / talk to / talk with > contact
speak / talk > speak
pick up > collect
drop off > deliver
come up with / think of > create
go with / goes with / pair with / pairs with > match
fall asleep / get to sleep > sleep
get to / get from > go
take place > happen
find fault with > criticise
how old > what age
how tall / how high > what height
how heavy / how much does it weigh > what weight
how fast > what speed
how far > what distance
how often > what frequency
how big / how large > what size
look for / looking for / search for / searching for > find
throw away / throw out > discard
give up / giving up > quit
put off / push back > postpone
call off > cancel
carry on > continue
fill in / fill out > complete
figure out / find out > find
go up / going up / went up > rise
go down / going down / went down / come down > fall
came down > fall
speed up > accelerate
slow down > decelerate
come from > origin
what caused / what causes / what is causing / what made / what makes it that > why did
how do you say / how do i say / how to say / what is the word for / how would you say > translate
chief executive officer / chief executive > ceo
multiplied by > times
made of / made from / made out of > ingredient
made up of / consist of / consists of > contain
take part in > join
what population of > population of
have to > must
deal with / dealing with / cope with / coping with > handle
depend on / depends on > depend
pay back > repay
money back / my money back > refund
pay for > buy
place of birth > birthplace
date of birth / birth date > birthday
turn into > become
as soon as possible > asap
like i am five / like i am 5 / eli5 / to a five year old / to a 5 year old > simply
electric car / electric cars / electric vehicle / electric vehicles / evs > ev
regular expression / regular expressions > regex
in go / with go > in golang
email address / email addresses / e-mail address > email
phone number / telephone number > phone
us dollar / us dollars > usd
right now / at the moment / at present > now
a lot of / lots of / plenty of > many
due to / because of / owing to / thanks to > because
such as / for instance / e.g > like
prior to / ahead of > before
subsequent to > after
do following / done following / happens following > do after
apart from / aside from > except
rather than / in place of > instead
next to > beside
close to > near
in front of > before
on top of > on
with no / if i have no / have no / has no / having no / does not have / do not have / don't have > without
doesn't have / do not contain / don't contain / does not contain / doesn't contain / contain no > without
free of / free from > without
no more than / not more than > at most
no less than / not less than > at least
the same as > equal
each and every / all of / every one of > all
as well as / along with / together with > and
united states of america / united states / u.s / u.s.a > usa
united kingdom / great britain > uk
nyc > new york city
per cent > percent
in simple terms / in simple words / in plain english / in layman's terms / in easy terms > simply
step by step >
in detail / in depth > thoroughly
two-factor / 2-factor / two factor authentication / two-factor authentication / 2-factor authentication > 2fa
wi-fi / wi fi > wifi
e-mail / e mail > email
can't remember / don't remember / no longer remember / do not remember / cannot remember > forgot
never came / never arrived / didn't arrive / did not arrive / hasn't arrived / has not arrived > missing
not arrived / never showed up / didn't come / did not come / haven't received / have not received > missing
didn't receive / did not receive / never received / haven't got / have not got > missing
"""


_Entry = tuple[tuple[str, ...], tuple[str, ...]]
"""A phrase's words, and what stands for it."""


def _table() -> dict[str, list[_Entry]]:
    """The phrases and what stands for each, by their first word, the longest first."""
    found: dict[str, list[_Entry]] = {}
    for line in _LIST.strip().splitlines():
        phrases, _, words = line.partition(">")
        for phrase in phrases.split(" / "):
            parts = tuple(phrase.replace("-", " - ").split())
            found.setdefault(parts[0], []).append((parts, tuple(words.split())))
    return {first: sorted(rest, key=lambda entry: -len(entry[0])) for first, rest in found.items()}


_PHRASES = _table()


def folded(tokens: list[Token]) -> list[Token]:
    """``tokens`` with each listed phrase replaced by what stands for it."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        entries = _PHRASES.get(token.plain)
        length, words = (0, ()) if entries is None else _phrase_at(tokens, place, entries)
        if length:
            result += [Token("word", word, word) for word in words]
            place += length
        else:
            result.append(token)
            place += 1
    return result


def _phrase_at(tokens: Sequence[Token], place: int, entries: Sequence[_Entry]) -> tuple[int, tuple[str, ...]]:
    """How many tokens the phrase has that begins there, and its words; 0 where none begins."""
    for parts, words in entries:
        end = place + len(parts)
        # Most are told by their second word.
        if end <= len(tokens) and (len(parts) == 1 or _is(tokens[place + 1], parts[1])):
            following = tokens[place + 2 : end]
            if all(map(_is, following, parts[2:])):
                return len(parts), words
    return 0, ()


def _is(token: Token, part: str) -> bool:
    return part in (token.plain, token.text)
