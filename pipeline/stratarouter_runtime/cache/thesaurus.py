"""Words that stand for each other in questions, in groups; a word may stand in several. Data only.

Weaker than ``lexicon.SYNONYMS``: such a pair makes a difference between two texts smaller, it does not undo it.
English, words in lower case and in plain form.
"""

from __future__ import annotations

_GROUPS = """
accelerate speed hasten quicken / accommodation hotel housing / accomplish achieve attain reach /
account login profile / acquire get obtain purchase / ad advert advertisement commercial / adapt adjust cope /
adolescent teen teenager / advice tip suggestion recommendation guidance hint counsel / aeroplane plane /
affordable cheap inexpensive budget economical / afraid scared frightened fear / age old / aim goal purpose /
alien extraterrestrial ufo / allergy allergic / allow permit let enable / alternative replacement substitute option /
amazing awesome incredible / amazing interesting / amount sum quantity total / ancient old / angry mad upset /
annoying irritating bothersome / answer reply response solution / apparel clothes clothing outfit wear /
appointment booking / area region zone / argue debate dispute / arrive reach / ask inquire question request /
assignment homework / attack assault / attorney lawyer solicitor / attract appeal / author writer wrote write /
authorise authorize approve permit / autobiography memoir / automatic automatically auto automated /
avoid prevent evade / award prize / aware know / baby infant newborn / backpack rucksack bag / bank lender /
bargain deal / battle fight war / beach seaside coast / beat defeat / beautiful pretty lovely attractive /
beginner novice starter newbie newcomer introductory / beginning start / belief faith / benefit advantage pro /
beside next / best top greatest finest leading ideal recommended / bike bicycle cycle / bill invoice /
birthplace born birth / bizarre strange / boat ship vessel / bonus reward / book reserve booking reservation /
books novels reads titles reading / boss manager supervisor / boy guy man / break crack / brief short concise /
bright brilliant clever smart / broken faulty defective malfunctioning / browser web / budget saving save finance /
bug defect error glitch fault issue / build construct compile make / business company firm enterprise / busy crowded /
calculate compute determine / call phone ring telephone / cancel drop / cancel terminate abort revoke /
car vehicle auto automobile / career job profession occupation / catch fetch / cause lead / ceiling cap limit /
cell mobile / centre center middle / certain sure / champion winner victor / chance odds probability likelihood /
change alter modify switch update adjust swap replace / charge fee cost bill / chart graph plot diagram /
cheap low budget affordable / cheat fraud scam / check verify validate test confirm inspect / cheque check /
children kids child kid youngster / choice selection combination / choose select pick decide /
cinema theater theatre movie / citizen national / class course lesson / cleanse wash / clear delete wipe empty /
climb ascend / close shut / coach trainer / code program script snippet / collect gather / college university /
combine unite concatenate / comfortable cosy cozy / command instruction / common frequent popular usual typical /
commute commuting travel / company firm organisation organization corporation / compare contrast /
complete finish full entire / comprehend understand grasp / concern worry / conflict war / connect link join attach /
consumption drinking eating intake consume drink eat / container box / convert transform change translate turn /
cook make prepare bake / cool chill / correct right fix / correlate relate / cost price fee charge expense expensive /
country nation / couple pair / courgette zucchini / crash fail failure /
create make build generate produce develop write / crime offence offense / cry emotional tears /
cure treat remedy heal treatment / currency money / currently now presently / customer client buyer / cyclist biker /
damage harm hurt injure / danger risk hazard / data information / date day / deadline due / deal offer discount /
debug troubleshoot diagnose / decide choose determine / decline reject refuse deny /
decrease reduce lower cut drop lessen / deduct subtract / define explain meaning definition / delay late /
delete remove erase clear drop discard / deliver ship delivery shipping / demand need require / dentist dental /
depression depressed / desire want wish / destination place spot attraction / destroy ruin /
detect discover find identify spot / device gadget / diet nutrition /
difference distinction differ different versus vs compare comparison / difficult hard tough challenging /
dinner supper / directory folder / disappear vanish / discussion thread conversation topic /
disease illness sickness / dish meal recipe / display show view / dispose discard / dispute challenge / distance far /
distinguish differentiate tell / divorce separation / doctor physician medic / document file / dollar usd buck /
dose dosage / download get fetch / drawback disadvantage con / drink beverage / drug medicine medication /
dumb stupid / duplicate copy clone / duration long length / during while / earn gain / earn make /
easy simple effortless straightforward / education schooling / effect impact influence consequence result /
effective efficient / elderly senior / elevator lift / eliminate remove / emotion feeling / employee worker staff /
employer boss company / end finish conclude stop / endpoint url route / engine motor / enlarge increase grow /
enrol enroll register join / entrance entry / error exception failure problem bug issue / essay paper /
establish found set / estimate guess approximate / evaluate assess judge / everyone everybody people /
examine inspect study / example sample instance illustration demo / excellent great / excessive much many /
exchange swap / exercise workout training / exhausting tiring / exhibit show / exit quit leave / expand increase /
expect anticipate / expense spending / expert specialist / explain describe clarify / extend prolong / fabric cloth /
factory plant / fall autumn / famous well-known popular renowned celebrated / fan supporter /
fast quick rapid speedy / fat overweight obese / father dad / fear anxiety afraid phobia /
feature function capability / feel experience feeling / female woman / fetch get retrieve pull / fever temperature /
film movie picture / film show / filter restrict limit narrow / finance fund money /
find locate search discover look get / finish complete end / fire dismiss sack / firm strict /
fix repair solve resolve correct troubleshoot mend / flat apartment / flatmate roommate / flaw defect /
flight fly plane / flu influenza / food meal dish cuisine / football soccer / forbid ban prohibit /
force power strength / forecast prediction outlook / foreign abroad overseas international / forgotten lost /
form shape / fortune luck / found founded founder create established started / free gratis / frequent often /
fresh new / friend buddy pal / fun enjoyable / function method procedure routine / fund money funding /
funding scholarship grant / funny humorous hilarious comic comedy / future scope / gain get / game match /
garbage trash rubbish waste / gas petrol fuel gasoline / genuine authentic real / get obtain receive acquire fetch /
gift present / girl woman / give provide offer / global worldwide / goal aim objective target / good great /
govern rule / government govt / grade mark score / guarantee ensure / guaranteed certain / guest visitor /
guide tutorial howto walkthrough instruction manual / hack trick / handle manage deal / happen occur /
happy glad joyful / harmful dangerous bad / head leader chief / health healthy / heart cardiac / height tall high /
help assist aid support / hide conceal / hike trail / hike trek walk / hint clue / hold keep / holiday vacation /
home house / horoscope astrology / hospital clinic / host organise / hotel accommodation lodging /
huge large big enormous / hurdle obstacle / hurt injure pain / hygiene cleanliness / idea suggestion /
identify recognise recognize / identity id / ill sick unwell / image picture photo photograph /
immediately instantly now / immigrate move / importance important significance /
improve enhance better boost increase optimize optimise / income earnings salary / increase raise grow boost improve /
influence affect effect impact / inform tell / information details info / ingest swallow /
inhabitant resident citizen / initial first / injure hurt wound / insert add / install setup set configure /
instant immediate / instruct teach / instrument tool / insurance cover coverage / intelligent smart clever /
introduce intro introduction / invent create invention inventor / investigate examine / invite invitation /
issue problem error trouble bug / job position occupation role work / jog run / jumper sweater /
keep retain maintain / keep stay remain / keyword term / kill terminate end stop / kind type sort / lady woman /
lag delay / language tongue / laptop notebook computer / last final / latest newest recent current / laundry washing /
law legal / learn study master / leave quit depart / lecture talk / legit reliable trustworthy /
licence license permit / light lamp / like love enjoy / limit restriction cap maximum / link connect url /
list enumerate lists / litter trash / lively active / loan borrow lend / local nearby / location place address where /
log record / login signin sign log / logout signout sign log / lone alone / lorry truck / lose lost misplace missing /
luck chance / luggage baggage / maid cleaner / mail post email / main major / maintain sustain keep / male man /
mark flag label / marry wed / mate friend / maximum max most / meaning mean definition define / mentor guide coach /
merchandise goods product / message text sms / method way approach technique / minimum min least / mistake error /
mix blend combine / mobile phone cellphone smartphone / modify change alter edit / money cash fund / month monthly /
mother mum mom / motivated motivation inspired / move relocate / music song / mute silence / name called /
nap sleep rest / nappy diaper / native local / near close nearby around / nearest closest near nearby /
need require want / network connection / new recent latest / news headlines / night evening / noise sound /
normal usual typical / notify alert inform / novel book fiction story / nutrient vitamin / oath pledge /
object thing item / obtain earn / occupied busy / odd strange weird / offspring child / online internet web /
operate run / opinion think view / opinion view thought / option choice alternative / option setting preference /
order purchase buy / organise organize arrange / origin source begin / outcome result / outline sketch /
overcome control stop beat handle / own have possess / package parcel / page webpage / pain ache hurt / painful sore /
pants jeans / paper article publication / parameter argument / parcel shipment / parse read / participate join /
passage extract / passcode pin password / password passphrase / pattern template / pause stop / pavement sidewalk /
pay payment / pc computer / people population person humans / percent percentage / perform do execute /
perfume fragrance / permission access / person individual human / pic picture photo / pimple acne /
place location spot site / plan planning organize prepare / plane airplane aircraft flight / police cop /
pollute contaminate / population people inhabitants / position place / post message thread / postcode zip zipcode /
postpone delay / pound gbp / poverty poor / predict forecast / pregnant pregnancy / pressure stress /
prevent avoid stop block / primary major chief principal / print output show display / prior previous /
private personal / prize reward / procedure process / professional expert / professor teacher / profit gain /
program application software app code / proof evidence / proper correct / protect guard secure /
prove show demonstrate / publish release / purpose reason goal / pursue do / quantity number / quarrel argue /
query question search / question query ask / queue line / quit leave stop / quiz test exam / rain rainfall /
rainy wet / rank position / rapid swift / rapidly quickly / react respond / real true / reason cause why /
recipe cook make dish / recommend suggest advise / recover restore retrieve / refrigerator fridge /
refund reimburse reimbursement / register enrol signup subscribe / regulation rule law / relation relationship /
remember recall / rent lease / replace substitute swap / reply respond answer / rescue save / research study /
reset restore restart / residence home / restart reboot relaunch / restaurant eatery diner cafe / return give /
reveal show / reverse undo / revert undo / rich wealthy / rise increase / road street / rock stone / route way path /
rude impolite / rude offensive / run execute launch / sad unhappy / salary compensation / salary wage pay income /
schedule calendar plan / screen display monitor / sculpture statue / secure protect safe / see watch /
self-employed freelance freelancer / send transmit forward / separate split divide / series sequence show /
server host / setting configuration option / severe serious / share split / shore coast / shout yell / shrink reduce /
sight view / sign symptom / significance importance meaning / silent quiet mute / similar like alike /
site place website / size big large dimensions / skill ability / skinny thin / slim thin / small little tiny /
sneakers trainers / soil dirt earth / solution answer fix / song track tune / sort order arrange kind /
soundtrack score music / space room / speak talk / speed fast velocity quick / spell spelling spelled / stare look /
start begin / starve hunger hungry / station stop / steady stable / steal stolen theft / stock share /
stomach belly tummy / stop prevent end / store shop save keep / story tale / strategy plan / stress anxiety /
string text / student college / student pupil learner / subject topic / submit send / subtract minus /
subway underground metro tube / suffer experience / suit outfit / summary summarize overview recap / sunny clear /
supervise manage / surgery operation / surprise unexpected twist / swap trade / sweet candy / swelling swollen /
task job / taxi cab / teacher instructor tutor / team squad / technique trick / television tv telly /
terrible awful bad / test check exam / theme topic / theory hypothesis / therapy treatment / thief robber /
think believe / throw raise / tidy clean / time hour / timetable schedule / tired exhausted / tired sleepy /
title name headline / toilet bathroom restroom loo / tonight evening / tool utility / total sum overall / tour trip /
town city / track follow trace monitor / trailer preview / translate translation / travel trip journey visit /
trip journey travel vacation / troubled worried / trousers pants / try attempt / tuition fee / tutorial guide lesson /
uninstall remove / universe world / unlock open / unusual rare / upgrade update / upset sad / url link address /
usage use / use utilise utilize apply employ / useful helpful / user customer / value worth / vanish disappear /
vendor seller merchant / verdict ruling / victim casualty / video clip / virus malware / wage earnings /
wallet purse / want need wish / warn alert notify / warranty guarantee / wealth money / weather forecast temperature /
week weekly / weight weigh heavy / wifi wireless / wildlife animals / win winner won victory / withdraw withdrawal /
working work / world earth global / write compose author / wrong incorrect / year yearly annual / yearn desire
"""


def _table() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in _GROUPS.split("/"):
        words = group.split()
        for word in words:
            found.setdefault(word, set()).update(words)
    return {word: frozenset(words) for word, words in found.items() if len(words) > 1}


RELATED = _table()
"""Each word to the words of all its groups, itself among them."""
