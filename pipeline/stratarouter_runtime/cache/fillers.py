"""Words that ask for nothing by themselves. Data only; lower case, plain form, English."""

from __future__ import annotations

from stratarouter_runtime.cache.lexicon import words_in

FILLERS = frozenset(
    words_in("""
a about across actually additional advice again all already also although am among an and answer any anybody anyone
anyway are as at be because been being believe between but by called can certain compute correctly could curious
define definition describe detail details did do does doing during each easily effectively else even ever every
exactly example examples explain find for from get give glad going good great guess guide guy guys had has have he
hello help her here hey hi his hmm how however i if important in info information instead instruction instructions
into is it its just kindly know let like list may maybe me mean meaning might mind most must my myself name named need
nice nowadays of oh ok okay on one onto or ought our per perhaps please possible properly question really recommend
recommendation recommendations regarding right said say says search seem seemed seems self shall share she should show
simple simply since so some somebody somehow someone step steps still successfully such suggest suggestion suggestions
tell than thank thanks that the their them then there therefore these they think this those though tip tips to total
totally tried truly trying tutorial upon us use using various via want wanted was way ways we well were what when
where whether which who whom whose why will wish with within wondering would yes yet you your yourself
""")
)
"""Words that carry no content of their own: their coming and going changes no answer."""

REDUNDANT = frozenset(
    words_in("""
abroad another anything anywhere app application available basics best called case cause caused causes city code come
command common concept considered conversion convert country current currently date determine different easiest easily
easy entire everything everywhere explanation extra favorite favourite function general give go happen happens home
idea introduction item keep kind language latest list main make many method much name new nothing number off option
order other out overview own particular people person place popular procedure process program programming put recent
recently recommended require required see similar site something somewhere sort specific start state suggestion take
technology thing through time top translate translation try type typical up user usual value version website whole
word words work working works world year
""")
)
"""Words that a paraphrase adds beside a word they describe: "the capital (city) of Canada"."""
