"""Forms of English words that no ending tells, and words with two spellings: the base form first. Data only."""

from __future__ import annotations

_GROUPS = """
light lighter lightest / slow slower slowest / low lower lowest /
man men / woman women / child children / person persons / foot feet / tooth teeth / mouse mice / life lives / wife
wives / knife knives / become became becomes becoming / begin began begun beginning / break broke / bring brought /
build built / buy bought / catch caught / choose chose chosen / come came / cost costs / die dying died dies / drink
drank drunk / drive drove driven / eat ate eaten / fall fell fallen / feel felt / fight fought / find found / fly flew
flown / get got gotten / give gave given / go went gone goes / grow grew grown / hide hid hidden / hold held / keep
kept / know knew known / lead led / leave left / lend lent / lie lying / lose lost loses losing / loss losses / make
made making / marry married / mean meant / meet met / pay paid / ride rode ridden / rise rose risen / run ran running
/ say said / see saw seen / sell sold / send sent / shake shook / sing sang sung / sleep slept / speak spoke spoken /
spend spent / stand stood / steal stole stolen / swim swam / take took taken taking / teach taught / tell told / think
thought / throw threw thrown / understand understood / use used using / wake woke / wear wore worn / win won winning /
write wrote written writing / easy easier easiest / fast faster fastest / quick quicker quickest / cheap cheaper
cheapest / cool cooler coolest / safe safer safest / strong stronger strongest / rich richer richest / big bigger
biggest / large larger largest / small smaller smallest / high higher highest / tall taller tallest / old older oldest
/ young younger youngest / long longer longest / short shorter shortest / hot hotter hottest / cold colder coldest /
near nearer nearest / heavy heavier heaviest / great greater greatest / deep deeper deepest / wide wider widest / hard
harder hardest / clean cleaner cleanest / nice nicer nicest / loud louder loudest / dark darker darkest / bright
brighter brightest / weak weaker weakest / rip ripped ripping / tear torn tore / zip zipped zipping / grey gray /
programme program / centre center / theatre theater / metre meter / favourite favorite favourites favorites / licence
license / travel travelled traveled travelling traveling traveller traveler / cancel cancelled canceled cancelling
canceling cancellation / expire expired expires expiring expiry expiration / arrive arrived arriving arrival / refuse
refusal / jewellery jewelry / aluminium aluminum / tire tyre / tie tied ties
tying / polite politer politest / installment installments instalment instalments
"""

BASE_FORMS = {form: group.split()[0] for group in _GROUPS.split("/") for form in group.split()}
"""Each form to its word's base form."""
