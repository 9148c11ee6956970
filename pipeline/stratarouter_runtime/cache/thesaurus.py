"""Words that stand for each other in questions, in groups; a word may stand in several. Data only.

Weaker than ``lexicon.SYNONYMS``: such a pair makes a difference between two texts smaller, it does not undo it.
English, words in lower case and in plain form.
"""

from __future__ import annotations

_GROUPS = """
last previous prior / visit go travel /
accelerate speed hasten quicken / accident crash collision / accommodation hotel housing / accomplish achieve attain
reach / account login profile / acquire get obtain purchase / actor star / ad advert advertisement commercial / adapt
adjust cope / adolescent teen teenager / advice tip suggestion recommendation guidance hint counsel / aeroplane plane
/ affordable cheap inexpensive budget economical / afraid scared frightened fear / age old young minimum / agent
representative human person / aim goal purpose / alcohol drinking drink / alien extraterrestrial ufo / allergy
allergic / allow accept permit / allow permit let enable / alternative replacement substitute option / amazing awesome
incredible / amazing interesting / amount sum quantity total / ancient old / angry mad upset / animal creature /
annoying irritating bothersome / another different second other / answer reply response solution / anxiety worry
stress / anywhere everywhere / apparel clothes clothing outfit wear / appear show / appointment booking / area region
zone / argue debate dispute / array list / arrive deliver come delivery receive / arrive reach / ask inquire question
request / ask require need / assignment homework / attack assault / attorney lawyer solicitor / attract appeal /
author writer wrote write / authorise authorize approve permit / autobiography memoir / automatic automatically auto
automated / avoid prevent evade / award prize / aware know / baby infant newborn / backpack rucksack bag / baggage
luggage bag suitcase / band group / bank lender / bargain deal / battery cell / battle fight war / beach seaside coast
/ beat defeat / beautiful pretty lovely attractive / beginner novice starter newbie newcomer introductory / beginning
start / belief faith / benefit advantage pro / beside next / best top greatest finest leading ideal recommended /
biggest largest / bike bicycle cycle / bill charge invoice payment / birthday born birth / birthplace born birth /
bizarre strange / boat ship vessel / bonus reward / book reserve booking reservation / books novels reads titles
reading / border frontier customs / boss manager supervisor / boy guy man / brake stop / break crack / brief short
concise / bright brilliant clever smart / broken faulty defective malfunctioning / browser web / budget plan / budget
saving save finance / bug defect error glitch fault issue / build construct compile make / business company firm
enterprise / busy crowded / calculate compute determine / call phone ring telephone / cancel drop / cancel revert
reverse / cancel terminate abort revoke / car vehicle auto automobile / career job profession occupation / cat kitten
/ catch fetch / cause lead / ceiling cap limit / cell mobile / centre center middle / certain sure / champion winner
victor / chance odds probability likelihood / change alter modify switch update adjust swap replace / charge fee cost
bill / charge load / chart graph plot diagram / cheap low budget affordable / cheapest lowest / cheat fraud scam /
check verify validate test confirm inspect / cheque check / child kid daughter son / children kids child kid youngster
/ choice selection combination / choose select pick decide / cinema theater theatre movie / citizen national / class
course lesson / clean wash scrub wipe / cleanse wash / clear delete wipe empty / click press tap / climb ascend /
close shut / close terminate end / coach trainer / code program script snippet / colleague coworker / collect gather /
college university / column field / combine unite concatenate / comfortable cosy cozy / command instruction / common
frequent popular usual typical / commute commuting travel / company firm organisation organization corporation /
compare contrast / complaint complain / complete finish full entire / complete process finish done / composer compose
/ comprehend understand grasp / concern worry / conflict war / connect link join attach / consumption drinking eating
intake consume drink eat / contact reach call write / container box / contract agreement / convert transform change
translate turn / cook prepare make bake recipe / cool chill refrigerate / correct right fix / correlate relate / cost
price fee charge expense expensive / country nation / couple pair / courgette zucchini / crash fail failure / create
make build generate produce develop write / crime offence offense / cry emotional tears / cure treat remedy heal
treatment / currency money / currently now presently / customer client buyer / cyclist biker / damage harm hurt injure
/ damaged broken defective / danger risk hazard / data information / date day / deadline due / deal offer discount /
debug troubleshoot diagnose / decide choose determine / decline reject refuse deny / decrease reduce lower cut drop
lessen / deduct subtract / define explain meaning definition / delay late / delete deactivate / delete remove erase
clear drop discard / deliver ship delivery shipping / demand need require / dentist dental / dependency package /
deploy release publish / depression depressed / depression sad / desire want wish / destination place spot attraction
/ destroy ruin / detect discover find identify spot / device gadget / die death dead / diet eat food / diet nutrition
/ difference distinction differ different versus vs compare comparison / difficult hard tough challenging / dinner
supper / director direct / directory folder / dirty filthy / disappear vanish / discount coupon voucher promo code
offer / discover discovery find / discussion thread conversation topic / disease illness sickness / dish meal recipe /
display show view / dispose discard / dispute challenge / distance far / distinguish differentiate tell / divorce
separation / doctor physician gp / doctor physician medic / document file / dog puppy / dollar usd buck / dose amount
/ dose dosage / downgrade lower / download get fetch / download install / drawback disadvantage con / drink beverage /
dumb stupid / duplicate copy clone / duration long length / during while / earn gain / earn make / earthquake quake /
easy simple effortless straightforward / education schooling / effect impact influence consequence result / effective
efficient / elderly senior / electricity power / elevator lift / eliminate remove / emotion feeling / employee worker
staff / employer boss company / end finish conclude stop / endpoint url route / energy power / engine motor / enlarge
increase grow / enough sufficient / enrol enroll register join / entrance entry / error exception failure problem bug
issue / essay paper / establish found set / estimate guess approximate / evaluate assess judge / everyone everybody
people / examine inspect study / example sample instance illustration demo / excellent great / excessive much many /
exchange swap return / exercise workout gym fitness / exercise workout training / exhausting tiring / exhibit show /
exist already / exit quit leave / expand increase / expect anticipate / expense spending / expert specialist / explain
describe clarify / extend prolong / extra additional another / fabric cloth / factory plant / fall autumn / famous
well-known known / famous well-known popular renowned celebrated / fan supporter / fast quick rapid speedy / fat
overweight obese / father dad / fear anxiety afraid phobia / feature function capability / feedback review opinion /
feel experience feeling / female woman / fetch get retrieve pull / fever temperature / film movie picture / film show
/ filter restrict limit narrow / finance fund money / find locate search discover look get / finish complete end /
fire dismiss sack / firm strict / fit suit / fix repair solve resolve correct troubleshoot mend / flat apartment /
flatmate roommate / flaw defect / flight fly plane / flower bloom / flu influenza / food meal dish cuisine / football
soccer / forbid ban prohibit / force power strength / forecast prediction outlook / foreign abroad overseas
international / forest woods / forgotten lost / form shape / fortune luck / found founded founder create established
started / free gratis / freeze hang crash / frequent often / fresh new / friend buddy pal / fun enjoyable / function
method procedure routine / fund money funding / funding scholarship grant / funny humorous hilarious comic comedy /
future scope / gain get / game match / game play / garbage trash rubbish waste / gas petrol fuel gasoline / genuine
authentic real / get obtain receive acquire fetch / gift present / girl woman / give provide offer / global worldwide
/ glue stick adhesive / goal aim objective target / god deity / good great / govern rule / government govt / grade
mark score / grow plant cultivate raise / guarantee ensure / guaranteed certain / guest visitor / guide tutorial howto
walkthrough instruction manual / hack trick / handle manage deal / hang mount / happen occur / happy glad joyful /
harmful dangerous bad / head leader chief / headache migraine / health healthy / heart cardiac / heat temperature /
heat warm / height tall high / help assist aid support / hide conceal / highest tallest / hike trail / hike trek walk
/ hint clue / hire recruit employ / hold keep / holiday vacation leave / home house / horoscope astrology / hospital
clinic / host organise / hotel accommodation lodging / hottest highest / huge large big enormous / hurdle obstacle /
hurt injure pain / hygiene cleanliness / ice frozen / idea suggestion / identity id / ill sick unwell / image picture
photo photograph / immediately instantly now / immigrate move / importance important significance / improve enhance
better boost increase optimize optimise / increase raise grow boost improve / influence affect effect impact / inform
tell / information details info / ingest swallow / inhabitant resident citizen / initial first / injure hurt wound /
insect bug / install setup set configure / instant immediate / instruct teach / instrument tool / insurance cover
coverage / insurance insured cover / intelligent smart clever / internet wifi network / introduce intro introduction /
invent create invention inventor / invest investment investing / investigate examine / invite invitation / issue
problem error trouble bug / job position occupation role work / job work career position / jog run / joke funny /
jumper sweater / keep retain maintain / keep stay remain / key shortcut / keyword term / kill murder / kill terminate
end stop / kind type sort / kindly please / king monarch / lady woman / lag delay / landlord owner / language tongue /
laptop notebook computer / last final / latest newest recent current / laundry washing / law legal / leak drip / learn
study master / leave quit depart / lecture talk / legit reliable trustworthy / library package module / licence
license permit / light lamp / like love enjoy / limit restriction cap maximum / link connect url / list enumerate
lists / litter trash / lively active / loan borrow credit / loan borrow lend / local nearby / locate located situated
find where / location place address where / log record / login signin sign log / logout signout sign log / lone alone
/ loop iterate / lorry truck / lose lost misplace missing / luck chance / lyrics words / maid cleaner / mail post
email / main major / maintain sustain keep / make take do get give / male man / mark flag label / marry wed / mate
friend / maximum max most / meaning mean definition define / mechanic garage / medicine medication drug pill tablet /
meeting appointment / mentor guide coach / merchandise goods product / merge combine join / message text sms / method
way approach technique / minimum min least / mistake error / mix blend combine / mobile phone cellphone smartphone /
modify change alter edit / money cash fund / month monthly / mortgage loan / mother mum mom / motivated motivation
inspired / mountain peak / mouse pointer / move relocate / move switch migrate change / music song / mute silence /
name called / nap sleep rest / nappy diaper / native local / near close nearby around / nearest closest near nearby /
need require want / network connection / new recent latest / new replacement / news headlines / night evening / noise
sound / noisy loud / normal usual typical / notify alert inform / novel book fiction story / number integer / nutrient
vitamin / oath pledge / object thing item / obtain earn / occupied busy / odd strange weird / offspring child / online
internet web / opening open hours / operate run / opinion think view / opinion view thought / option choice
alternative / option setting preference / order purchase buy / order request apply / organise organize arrange /
origin source begin / outcome result / outline sketch / overcome control stop beat handle / own have possess / page
webpage / pain ache hurt sore / painful sore / paint colour / painter artist paint / pants jeans / paper article
publication / parameter argument / parcel package shipment order / parse read / participate join / passage extract /
passcode pin password / passenger traveller traveler / passport travel / password passphrase / pattern template /
pause stop / pavement sidewalk / pay payment / payment transaction / pc computer / pension retirement retire / people
population person humans / percent percentage / perform do execute / perfume fragrance / permission access / person
human people someone / person individual human / phone handset / photo picture image pic / picture avatar / pimple
acne / place location spot site / plan planning organize prepare / plane airplane aircraft flight / plane flight
airline / player athlete / poem verse / police cop / pollute contaminate / pop-up popup / population people
inhabitants / position place / post message thread / postcode zip zipcode / postpone delay / pound gbp / poverty poor
/ predict forecast / pregnant pregnancy / president leader head / pressure stress / prevent avoid stop block / price
cost rate / primary major chief principal / print output show display / printer print / prior previous / private
personal / prize reward / procedure process / professional expert / profit gain / program application software app
code / proof evidence / proper correct / protect guard secure / prove show demonstrate / purpose reason goal / pursue
do / put add insert / quantity number / quarrel argue / queen monarch / query question search / query request /
question query ask / queue line / quickest fastest / quit leave stop / quiz test exam / rain rainfall / rainy wet /
rank position / rapid swift / rapidly quickly / rash itch / react respond / real true / reason cause why / recipe cook
make dish / recognise recognize know identify / recommend suggest advise / recover restore retrieve / refrigerator
fridge / refund reimburse reimbursement / refund return money / register enrol signup subscribe / regulation rule law
/ relation relationship / religion faith / remember recall forget / remove clean / remove stop cure end / rent lease /
repeat loop / replace substitute swap / reply respond answer / rescue save / research study / reset restore restart /
residence home / resign quit leave / restart reboot relaunch / restaurant eat dine / restaurant eatery diner cafe /
resume continue / resume cv / return give / reveal show / reverse undo / revert undo / rich wealthy / rise increase /
river stream / road street / rock stone / rocket spacecraft / route way path road / row line record / rude impolite /
rude offensive / run execute launch / sad unhappy / salary compensation / salary pay wage earnings income / schedule
calendar plan / school education / score goal point / screen display monitor / sculptor sculpture / sculpture statue /
sea ocean / secure protect safe / see watch / self-employed freelance freelancer / send transmit forward / separate
split divide / series sequence show / server host machine / setting configuration option / severe serious / sew stitch
/ share split / shipping delivery postage / shore coast / shout yell / shrink reduce / shut closed / shutdown disable
stop / sight view / sign symptom / significance importance meaning / silent quiet mute / similar like alike / simplest
easiest / site place website / size big large dimensions / size fit / skill ability / skinny thin / slim thin / slow
sluggish / small little tiny / smell odor odour stink / smoke smoking / sneakers trainers / soil dirt earth / solution
answer fix / song track tune / sort order arrange kind / soundtrack score music / space room / speak talk / speed fast
velocity quick / spell spelling spelled / squeak noise / stain spot mark / stare look / start begin / starve hunger
hungry / station stop / steady stable / steal stolen theft / stock share / stomach belly tummy / stop prevent end /
store keep preserve / store shop save keep / storm hurricane / story tale / strategy plan / string text / student
college / student pupil learner / subject topic / submit send / subscription plan membership / subtract minus / subway
underground metro tube / sue court / suffer experience / suit outfit / summary summarise summarize / summary summarize
overview recap / sunny clear / supervise manage / support accept take / support help service / surgery operation /
surprise unexpected twist / suspend pause / swallow eat keep / swap trade / sweet candy / swelling swollen / table
grid / task job / tax taxes / taxi cab / teacher instructor tutor / teacher professor tutor / team club / team squad /
tear rip / technique trick / television tv telly / tenant renter / terminate close cancel / terrible awful bad / test
check exam / theme topic / theory hypothesis / therapy counselling counseling / therapy treatment / thief robber /
think believe / throw raise / ticket pass / tidy clean / tie knot / time hour / timetable schedule / tip gratuity /
tired fatigue exhausted / tired sleepy / title name headline / toilet bathroom restroom loo / tonight evening / tool
utility / total sum overall / tour trip / town city / track follow trace monitor / track locate follow / trailer
preview / train rail railway / translate translation / travel trip journey visit / treaty agreement / trip journey
travel vacation / troubled worried / trousers pants / try attempt / tuition fee / tutorial guide lesson / uninstall
remove / universe world / unlock open / unusual rare / upgrade improve / upgrade update / upset sad / url link address
/ usage use / use utilise utilize apply employ / useful helpful / user customer / value worth / vendor seller merchant
/ verdict ruling / verify prove confirm / victim casualty / video clip / virus malware / visa permit / vitamin
supplement / wallet purse / want need wish / warn alert notify / warranty guarantee / water liquid / wealth money /
weather forecast temperature / week weekly / weekday day / weight fat / weight weigh heavy / wifi wireless / wildlife
animals / will testament / win winner won victory / withdraw withdrawal / word term / working work / world earth
global / write compose author / wrong incorrect / year yearly annual / yearn desire
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
