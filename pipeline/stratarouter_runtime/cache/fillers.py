"""Words that ask for nothing by themselves. Data only; lower case, plain form, English."""

from __future__ import annotations

from stratarouter_runtime.cache.lexicon import words_in

FILLERS = frozenset(
    words_in("""
a about absolutely across actually additional advice again all already also although am among an and answer any
anybody anyone anyway anyways are as at attempt attempted attempting basically be because been being believe besides
between but by calculate called can certain certainly clearly compute correctly could curious define definitely
definition describe desperately detail details did do does doing during each easily effectively else essentially etc
even ever every exactly example examples explain extremely fairly find folks for from furthermore get getting give
glad going good got gotten great greatly guess guide guy guys had has have he hello help hence her here hereby hey hi
highly his hmm honestly how however i if important in incredibly indeed info information instead instruction
instructions into is it its just kinda kindly know let like likewise list literally may maybe me mean meaning merely
might mind moreover most must my myself name named need nice nowadays obviously of oh ok okay on one onto or ought our
per perhaps please possible probably properly question quite rather really recommend recommendation recommendations
regarding right said say says search seem seemed seems self seriously shall share she should show simple simply since
so some somebody somehow someone sorta specifically step steps still successfully such suggest suggestion suggestions
surely surprisingly tell than thank thanks that the their them then there therefore these they think this thoroughly
those though thus tip tips to total totally tried truly trying tutorial typically ultimately upon us use using utterly
various very via want wanted was way ways we well were what whatever when whenever where whereas wherever whether
which whichever while whilst who whoever whom whose why will wish with within wondering would yes yet you your
yourself
""")
)
"""Words that carry no content of their own: their coming and going changes no answer."""

REDUNDANT = frozenset(
    words_in("""
ability able abroad absolute accessible account activity actual additional along alternative another anybody anymore
anything anywhere apart app appear application apply appropriate approximate approximately area aspect assistance
associate available away awhile back basically basics become best bit bring bunch called carry case cause caused
causes certain choice circumstance city code come command common complete completely concept condition considered
conversion convert country couple current currently date deal decent detail determine different directly discovery
distinct easiest easily easy effective effectively efficient efficiently effort else ensure entire entirely especially
everything everywhere exact existing experience explanation extra face fact favorite favourite feasible feature
finally form former frequently fully function general generally give go happen happening happens hello helpful hold
home idea ideal immediate immediately interested introduction involve item keep kind kinds language latest level list
lot main mainly make manage many matter method moment mostly much multiple name necessary new normal nothing notice
number obtain occur off ongoing opinion opportunity option order ordinary other out overall overview own part
particular particularly people percentage permissible person personal personally piece place plenty point popular
position possibility practical procedure process program programming proper properly provide provider purpose put real
reason receive recent recently recommended regarding regular regularly relevant remain request require required
respective result safely see send several similar site situation someone something sometimes somewhere sort specific
start state status stay stuff subject successful suggestion suitable sum supposed sure take task technology term thing
those through time top total totally toward translate translation try type typical up urgent urgently useful user
usual usually value various version via view visit watch website while whole word words work working works world write
year
""")
)
"""Words that a paraphrase adds beside a word they describe: "the capital (city) of Canada"."""

TELLING = frozenset(
    words_in("""
another become best city code command condition country current currently date different easiest easy favorite
favourite idea language latest level list main many much name new nothing number other part popular program
programming recent recently state subject suggestion top translate translation type value version way website world
write year
""")
)
"""Those of them that may tell two questions apart: "restaurants near me", "the best restaurants near me"."""
