"""Folds what is said in several words, or in short ones, into one form: "get rid of", "would you mind", "dont". Pure.

A line of the list is ``phrase / phrase > words``; nothing behind the arrow: the phrase asks for nothing by itself.
A phrase stands for its words wherever it stands, so only such are listed that mean one thing. English.
"""

from __future__ import annotations

from collections.abc import Sequence

from stratarouter_runtime.cache import compounds
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
check out of / checking out of / check-out / check out time > checkout
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
two-factor / 2-factor / 2 factor / two factor / two factor authentication / two-factor authentication > twofactor
2-factor authentication / 2 factor authentication / 2 fa > twofactor
wi-fi / wi fi > wifi
e-mail / e mail > email
can't remember / don't remember / no longer remember / do not remember / cannot remember > forgot
never came / never arrived / didn't arrive / did not arrive / hasn't arrived / has not arrived > missing
not arrived / never showed up / didn't come / did not come / haven't received / have not received > missing
didn't receive / did not receive / never received / haven't got / have not got > missing
what steps do i take to / what steps should i take to / steps to take to > how can i
what is the procedure for / what is the procedure to / what is the process for / what is the process to > how can i
what is the process of / explain the process of / describe the process of > how
what is the easiest way to / what is the correct way to / what is the proper way to > how can i
what are the best ways to > how can i
best way to / easiest way to / correct way to / proper way to > how to
is there an easy way to / is there a quick way to > how can i
is there any possibility to / is there a possibility to / is there an option to > how can i
am i able to / am i allowed to / am i permitted to / may i be allowed to > can i
am i required to / am i obliged to / am i obligated to > must i
are you able to / could you possibly > can you
how can people > how can i
what does it take to > how can i
techniques for / techniques to / strategies for / strategies to > how to
directions for / directions to make > how to
walk me through / talk me through / take me through > how to
i have trouble / i am having trouble / having trouble / i have difficulty / i am having difficulty > trouble
having difficulty > trouble
i have problems / i am having problems / having problems / i am having issues / having issues / have issues > trouble
i have a problem with / there is a problem with / there is an issue with / i have an issue with > trouble
tell me more about / tell me something about >
facts about / facts on / more about >
talk about >
i would love to know / please advise >
i need to find out / i want to find out / i would like to find out / i am interested in knowing >
i am interested in / interested in >
do you have any idea >
in your opinion >
as far as you know / to your knowledge / just to be sure / just to confirm / just to check / for my understanding >
any help is appreciated >
i am new to this / i am new here / i am confused / i am a bit confused / i am stuck / i am lost >
good morning team / good afternoon team / good evening team / hello team / hi team >
have a nice day / kind regards / best regards / best wishes / cheers mate / appreciate your help / appreciate it >
it looks like / it appears that / it appears >
i noticed that / i have noticed that / i just noticed / i noticed >
despite the fact that / despite the fact / in spite of the fact that > although
in spite of / regardless of > despite
in case of / in the event of / in the case of > if
in case / in the event that / assuming that / provided that / as long as / supposing > if
until such time as > until
at this time / at this point / at this moment / at present time / these days / as of now > now
at that time / at that point / back then > then
in the near future / before long / in a short time > soon
from time to time / every now and then / once in a while / now and then > sometimes
on a daily basis / each day / every day > daily
on a weekly basis / each week / every week > weekly
on a monthly basis / each month / every month > monthly
on an annual basis / each year / every year > yearly
all over the world / around the world / across the world / throughout the world / all around the world > worldwide
more than one / a number of / a few / a couple of / a bunch of / multiple > several
a great deal of / a large number of / loads of / tons of > many
a bit of / a little bit of / a little bit > some
what is the number of / what number of / the total number of / total number of > how many
what is the amount of / what amount of / total amount of / the amount of > how much
what is the price of / what is the cost of / what does it cost to > what price
how much would it cost to / how much will it cost to / how much does it cost to / how much does it cost > what price
how much would it cost / how much will it cost > what price
what do i pay for / how much do i pay for / how much must i pay for / what will i pay for > what price
what is the duration of / how much time does it take / how much time will it take > how long
how long does it take / how long will it take / how long would it take / how long do i have to wait > how long
how long must i wait > how long
what is the distance / how many miles / how many kilometers / how many km / how many kilometres > what distance
what is the age of > how old
what is the height of > what height
what is the temperature > what temperature
who is the author of / who was the author of / who is the writer of / who authored > who wrote
who is the inventor of / who was the inventor of > who invented
who is the founder of / who was the founder of / who are the founders of > who founded
who is the creator of / who was the creator of > who created
who is the director of / who was the director of > who directed
who is the owner of / who is the current owner of > who owns
where can i buy / where do i buy / where to buy / where can i purchase > where buy
what is the date of / what day is / on what day is / which day is / what date was / what day was > when is
when is the date of / what is the release date of > when is
what is the reason behind / what are the reasons for / what are the reasons behind > why
what are the causes of / what is the cause of / what leads to / what triggers / what brings about > why
why is it the case that / what makes > why
what is the purpose of / what is the point of / what is the use of / what is the goal of > what purpose
what is the aim of > what purpose
what is the difference between / what are the differences between / what is the distinction between > difference
what differentiates / what distinguishes > difference
tell the difference between > difference
in comparison to / in comparison with / as opposed to / as compared to / vs > versus
what are the advantages of / what are the benefits of / what are the pros of > benefit
what are the disadvantages of / what are the drawbacks of / what are the cons of > drawback
what are the symptoms of / what are the signs of / how do i know if i have > symptom
what are the side effects of > sideeffect
what are the requirements for / what is needed for / what do i need for > requirement
what are the rules of / what are the rules for > rules
make a list of / provide a list of > list
give a summary of / give me a summary of / provide a summary of / write a summary of / make a summary of > summarize
give an overview of / overview of / provide an overview of / sum up > summarize
write a short summary of / give a brief summary of / write a brief summary of > briefly summarize
provide an explanation of > explain
make a translation of / give the translation of / what is the translation of > translate
make a comparison of / a comparison of / comparison of / do a comparison of > compare
make a payment / make payments / do a payment / carry out a payment / make a purchase payment > pay
make a purchase / make purchases > buy
make a transfer / do a transfer / carry out a transfer / initiate a transfer > transfer
make a deposit / do a deposit > deposit
make a withdrawal / do a withdrawal / make withdrawals > withdraw
make a booking / make a reservation / place a booking > book
make an appointment / set an appointment / schedule an appointment / book an appointment > appointment
make a change to / make changes to / do changes to / make an adjustment to / make a modification to > change
make a decision / come to a decision / reach a decision / make up my mind / make a choice > decide
make a complaint / file a complaint / lodge a complaint / submit a complaint > complain
make a claim / file a claim / submit a claim / lodge a claim > claim
make a request / submit a request / put in a request / file a request > request
make a call / give a call / place a call / make a phone call > call
make an offer > offer
make use of / making use of / made use of > use
make money / making money / earn money > earn
make friends / making friends > friend
place an order / placing an order / placed an order / put in an order > order
take a look at / have a look at / look at > view
take a picture of / take a photo of / take pictures of / take photos of > photograph
take a break / have a break / take a rest / have a rest > rest
take a shower / have a shower > shower
take a walk / go for a walk / going for a walk > walk
take a nap / have a nap > nap
take a test / sit an exam / take an exam / write an exam > exam
take care of / look after / looking after / taking care of / care for > care
take advantage of > use
take into account > consider
have an effect on / have an impact on / has an effect on / has an impact on > affect
have access to / get access to / gain access to / obtain access to > access
have a conversation / have a chat > talk
have a baby / give birth / giving birth > birth
give permission / give consent / give approval > permit
hand back / giving back > return
give away > donate
get ready / getting ready > prepare
get better at / become better at / get good at / be better at > improve
get better / get well > recover
get worse > worsen
get bigger > grow
get smaller > shrink
get married / getting married > marry
get divorced / getting divorced > divorce
get in shape / get fit > fit
get up / wake up / waking up > wake
get hold of > contact
do the dishes / wash the dishes / washing up > dishwash
do away with > remove
go on holiday / go on vacation > travel
go bad / gone bad / goes bad > spoil
go to bed / going to bed > sleep
look into > investigate
look forward to > await
keep on > continue
keep track of / keep an eye on > track
keep from / stop from / prevent from > prevent
set aside > reserve
put together > assemble
type in / key in > enter
put on weight / gain weight > weightgain
lose weight / losing weight / drop weight / shed weight / shed pounds / weight loss > slimdown
weight gain > weightgain
run out of > lack
bring up / bringing up > raise
break up with / split up with > breakup
break up / split up > breakup
break down / breaks down > breakdown
carry out / carried out / carrying out > perform
cut down on / cut back on / cut down / cut back > reduce
cut off > disconnect
fall apart > break
hand in > submit
leave out > omit
lie down > rest
log into / log onto / sign into / logged into > login
move house / move home / move to a new house > move
pass away / passed away > die
pay off > repay
pay by / pay using > pay with
point out > show
ring up > call
rule out > exclude
save up > save
send off > send
sold out / out of stock > unavailable
start up / starting up > start
stand for / stands for > meaning
stay up > awake
switch over to / change over to / move over to / switch to / change to > switch
take over > takeover
think about > consider
wait for / waiting for > await
wear off > fade
write down > note
a lot more > more
at no cost / at no charge / free of charge / for free / without charge / without paying / without cost > free
by hand > manually
by mistake / by accident / accidently > accidentally
making use of > using
on my own / on your own > myself
for good / for ever / forever > permanently
for the first time > first
in advance > beforehand
in bulk > wholesale
in good shape > fit
in person > personally
in public > publicly
in stock > available
in the middle of / in the center of / in the centre of > center
in the morning > morning
on earth / on the planet > world
altogether > total
on purpose > deliberately
on the internet / over the internet / on the web / via the internet > online
on time > punctual
on vacation / on holiday > vacation
out of date > outdated
out of order > broken
by phone / by telephone > phone
quite a few > several
side by side > beside
the rest of > remaining
the whole / the entire / whole of / entire > whole
too much > too many
under the age of > younger than
up to date > current
well known > famous
with respect to / with regard to / in regard to / in regards to / concerning / in relation to > about
with the exception of / other than / save for > except
within walking distance > near
worth it > worth
side effects / side effect / adverse effects > sideeffect
in other countries / in another country / in foreign countries / outside the country / outside my country > abroad
out of the country > abroad
two times / 2 times > twice
three times / 3 times > thrice
one time > once
don't recognize / do not recognize / don't recognise / do not recognise / didn't recognize > unrecognized
i didn't do / i did not do / did not make / didn't make / never made > unrecognized
did not authorize / didn't authorize / did not authorise / didn't authorise > unrecognized
is not mine / isn't mine / am not familiar with / not familiar with / unsure of / don't remember making > unrecognized
or not / or no >
written by / authored by / posted by / composed by > by
how much is it / how much are they > what price
"""


_Entry = tuple[int, tuple[str, ...], tuple[str, ...]]
"""A phrase's rank among those of the same first word (the longest is first), its words, and what stands for it."""
_Phrases = dict[str, list[_Entry]]
"""By their second word; _ALONE for phrases of one word."""
_ALONE = ""


def _table() -> dict[str, _Phrases]:
    """The phrases and what stands for each, by their first word and their second."""
    found: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for line in (_LIST.strip() + compounds.LIST).splitlines():
        phrases, _, words = line.partition(">")
        for phrase in phrases.split(" / "):
            parts = tuple(phrase.replace("-", " - ").split())
            found.setdefault("#" if parts[0].isdigit() else parts[0], []).append((parts, tuple(words.split())))
            if len(parts) == 2 and all(map(str.isalpha, parts)):
                # "Check in", "check-in".
                found[parts[0]].append(((parts[0], "-", parts[1]), tuple(words.split())))
    return {first: _by_second(rest) for first, rest in found.items()}


def _by_second(entries: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> _Phrases:
    found: _Phrases = {}
    for rank, (parts, words) in enumerate(sorted(entries, key=lambda entry: -len(entry[0]))):
        found.setdefault(parts[1] if len(parts) > 1 else _ALONE, []).append((rank, parts, words))
    return found


_PHRASES = _table()


def folded(tokens: list[Token]) -> list[Token]:
    """``tokens`` with each listed phrase replaced by what stands for it."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        phrases = _PHRASES.get(token.plain)
        length, words = (0, ()) if phrases is None else _phrase_at(tokens, place, phrases)
        if length:
            result += [Token("word", word, word) for word in words]
            place += length
        else:
            result.append(token)
            place += 1
    return result


def _phrase_at(tokens: Sequence[Token], place: int, phrases: _Phrases) -> tuple[int, tuple[str, ...]]:
    """How many tokens the phrase has that begins there, and its words; 0 where none begins."""
    found = _first_at(tokens, place, phrases.get(_ALONE))
    if place + 1 < len(tokens):
        # Nearly all are told by their second word.
        second = tokens[place + 1]
        for word in (second.plain,) if second.plain == second.text else (second.plain, second.text):
            other = _first_at(tokens, place, phrases.get(word))
            if other is not None and (found is None or other[0] < found[0]):
                found = other
    return (0, ()) if found is None else (len(found[1]), found[2])


def _first_at(tokens: Sequence[Token], place: int, entries: Sequence[_Entry] | None) -> _Entry | None:
    for entry in entries or ():
        parts = entry[1]
        end = place + len(parts)
        is_there = end <= len(tokens) and all(map(_is, tokens[place + 2 : end], parts[2:]))
        if is_there and (tokens[place].value is None or _is(tokens[place], parts[0])):
            return entry
    return None


def _is(token: Token, part: str) -> bool:
    return part in (token.plain, token.text)
