"""Words that stand for each other in questions, in groups; a word may stand in several. Data only.

Weaker than ``lexicon.SYNONYMS``: such a pair makes a difference between two texts smaller, it does not undo it.
English, words in lower case and in plain form.
"""

from __future__ import annotations

from stratarouter_runtime.cache.lexicon import grouped

_GROUPS = """
abandon leave quit / ability capability capacity skill / able capable / abnormal unusual irregular / absent missing
away / absorb soak / abuse misuse / academic scholarly / accelerate speed hasten quicken / accent pronunciation /
acceptable okay fine allowed / accepted taken supported / accident crash collision / accidentally mistake
inadvertently unintentionally / accommodation hotel housing / accomplish achieve attain reach / account login profile
/ accurate exact precise correct / accuse blame / accustomed used / acknowledge admit confirm / acne pimple breakout /
acquire get obtain purchase / action step measure / active enabled / activity hobby pastime / actress actor star /
actual real / acute severe / ad advert advertisement commercial / adapt adjust cope / add attach append insert / add
include / addition extra / address tackle / adequate enough sufficient / admire respect / admission entry entrance /
adore love / adulthood adult grownup / advantage benefit strength upside plus / adventure trip / advertise promote
market / advice tip suggestion recommendation guidance hint counsel / advise counsel / aerobics cardio / aeroplane
plane / affair matter / affordable cheap inexpensive budget economical / afraid scared frightened fear / afterwards
later / age old young minimum / agenda schedule plan / agent representative human person / agree accept consent /
ailment illness disease condition / aim goal purpose / air broadcast / airfare flight ticket / airport terminal /
alarm alert / alcohol drinking drink / alcohol liquor booze / alert notification reminder / alien extraterrestrial ufo
/ allergen allergy / allergy allergic / allow accept permit / allow permit let enable / alternative replacement
substitute option / amateur beginner / amazing awesome incredible / amazing interesting / ambition goal / amend change
modify edit / amount sum quantity total / amount value / ample enough / amusing funny entertaining / analyse analyze
examine analysis / ancestor forefather / ancient old / anger rage fury / angry mad upset / animal creature /
anniversary birthday / announce declare reveal / announcement news notice / annoying irritating bothersome / another
different second other / answer reply response solution / anticipate predict foresee / antique old vintage / anxiety
worry stress / anxious nervous worried / anywhere everywhere / apartment condo / apologise apologize sorry apology /
apparatus equipment device / apparel clothes clothing outfit wear / apparent obvious clear / appeal contest dispute /
appear show / appetite hunger / appliance machine device / applicant candidate / appointment booking / appraise value
assess / appreciate value / apprehensive nervous / approach strategy / appropriate suitable proper right / approval
permission / approve accept / approximately roughly around estimate / architecture design structure / area region zone
/ argue debate dispute / arise occur happen / arrange schedule / array list / arrest detain / arrive deliver come
delivery receive / arrive reach / article post blog / artificial synthetic / ask inquire question request / ask
require need / assemble build put / assembly meeting / assert claim / assess evaluate measure / asset property /
assignment homework / associate link / association organization / assume suppose / assure guarantee / astronaut
cosmonaut / athletic sport sporty / atmosphere mood ambiance vibe / attack assault / attain get / attempt effort /
attend visit join participate / attendee participant / attic loft / attitude mindset / attorney lawyer solicitor /
attract appeal / audio sound / authentic original / author writer novelist / author writer wrote write / authorise
authorize approve permit / authorization permission / authorized allowed / autobiography memoir / automatic
automatically auto automated / autopay automatic / available offered stock / aversion dislike / avoid prevent evade /
await expect / await wait awaiting / award prize / aware know / awful horrible terrible / baby child / baby infant
newborn / backlog queue / backpack rucksack bag / badge achievement award / baffling confusing / baggage luggage bag
suitcase / baking baker / bald hairless / ban block / band group / bank lender / bankrupt insolvent bankruptcy
insolvency / bargain deal / barrier obstacle / base foundation / basics fundamentals introduction essentials beginner
/ bath tub bathtub / batter mix / battery cell / battle fight war / bbq barbecue grill / beach seaside coast / bear
tolerate stand / beat defeat / beautiful pretty lovely attractive / bedtime sleep / beforehand advance / begin
commence / beginner novice starter newbie newcomer introductory / beginning start / behave act / behaviour behavior
conduct / belief faith / belly abdomen stomach / belongings possessions things / beloved favorite / bend fold /
beneficial helpful good useful / benefit advantage pro / beside next / best top greatest finest leading ideal
recommended / bestselling popular top / betray cheat / bias prejudice / bid offer / biggest largest / bike bicycle
cycle / bill charge invoice payment / binder folder / binge watch / birthday born birth / birthplace born birth /
biscuit cookie / bizarre weird unusual strange / blanket duvet / bleach whiten / blocked frozen suspended / blog
website article / blunder mistake / blurry unclear fuzzy / boat ship vessel / bodybuilding muscle / bond relationship
/ bond tie / bonding bond connect / bonus reward / book reserve booking reservation / books novels reads titles
reading / boost raise improve increase enhance / boot startup / border frontier customs / bore drill / bored boredom
boring / boring dull tedious / boss manager supervisor / boy guy man / brainstorm idea / brake stop / brand make label
company / brave courageous bold / breach violation break / break crack / breakup separation / breathe breathing breath
/ breed kind / breed type / brew make / brief short concise / bright brilliant clever smart / brochure leaflet flyer
pamphlet / broken cracked damaged / broken faulty defective malfunctioning / browse view surf / browser web / bruise
injury / budget plan / budget saving save finance / buffer cache / bug defect error glitch fault issue / bug flaw /
build construct compile make / bulk wholesale / bump hit / burglar thief robber intruder / burn scorch / business
company firm enterprise / busy hectic crowded / button key / buyer purchaser shopper / cable wire cord / cafe
coffeehouse coffeeshop / calculate compute determine / call phone ring telephone / calm relax soothe / camera cam /
cancel call / cancel drop / cancel revert reverse / cancel terminate abort revoke / cap hat / capital funds / capture
record / car vehicle auto automobile / caravan camper rv motorhome / cardigan sweater / care look / care treatment /
career job profession occupation / careful cautious / caretaker janitor / cargo freight / carriage wagon / carry bring
take transport / cart basket trolley / cartoon animation animated / cash banknotes notes / cashpoint atm / cat kitten
/ catch fetch / catch grab / category kind type class / cause lead / caution warning / cave cavern / ceiling cap limit
/ cell mobile / cellar basement / cemetery graveyard / centre center middle / ceremony ritual rite / certain sure /
certificate certification / challenge difficulty problem / champion winner victor / chance odds probability likelihood
/ chance opportunity / change alter modify switch update adjust swap replace / changelog release history / channel
station / charge bill debit / charge fee cost bill / charge load / charity donation / charming lovely / chart graph
plot diagram / chase pursue / chat conversation talk / chat message talk / cheap low budget affordable / cheapest
lowest / cheat fraud scam / check verify validate test confirm inspect / checkout pay / cheer uplift encourage /
cheque check / chief boss / child kid daughter son / children kids child kid youngster / chilly cold cool / choice
decision / choice selection combination / choose select pick decide / choosing selection / chore task / cigarette
smoke smoking tobacco / cinema theater theatre movie / circular round / circumstance situation condition / citizen
national / citizen nationality / claim request / class course lesson / classic traditional / classify categorize
categorise sort / classmate student / classroom class / clause term / clean wash scrub wipe / cleanse wash / cleanup
clean / clear delete wipe empty / clever wise / click press tap / client user / climb ascend / clip cut / close shut
end / close terminate end / clue sign / coach trainer / code cipher / code program script snippet / coding programming
code / coffee caffeine / coin money / collaborate cooperate work / collapse fall crash / colleague coworker /
colleague teammate / collect gather / collect pickup / college university / column field / combine unite concatenate /
comedy funny humor comedic / comfort console / comfort ease / comfort soothe / comfortable cosy cozy / command
instruction / comment feedback / comment remark / common frequent frequently usual / common frequent popular usual
typical / common shared / common widespread / communicate talk / community group / commute commuting travel /
companion partner friend / company firm organisation organization corporation / compare contrast / compatible work /
compensate pay reimburse / compensation payment / competent capable / competition contest tournament / competitor
rival opponent / compile gather / complain complaint grumble / complaint problem issue / complete finish full entire /
complete process finish done / complex complicated / compliance adherence / complicated difficult hard / component
part element / composer compose / comprehend understand grasp / comprehensive complete full / compress shrink reduce /
compromise agreement / compute work / concentrate focus study / concept idea notion / concern problem / concern worry
/ concert gig show / conclusion end summary / condition requirement / condition state status / conduct perform do /
conference meeting / confess admit / confidence selfesteem / confident confidence / confidential private secret /
confine limit / conflict war / confuse puzzle baffle / confused unsure / congratulate congrats / connect link join
attach / connection link relation relationship / conquer defeat / consent permission agreement / conserve save
preserve / consider count regard / considerable significant / constant steady continuous / constitute form / construct
construction / consult ask / consultant adviser advisor expert / consume use / consumer customer user buyer /
consumption drinking eating intake consume drink eat / contact reach call write / contact reach touch / container box
/ contaminate infect / contend compete / content contents material / continue proceed keep / contract agreement /
contract shrink / contribute donate give / contribution donation / control command / convention conference /
convention custom / conventional traditional / convert transform change translate turn / convey carry / convict
prisoner / convince persuade / cook prepare make bake recipe / cool chill refrigerate / cool trendy / cope deal handle
manage overcome / cope survive / correct right fix / correlate relate / corridor hallway / corrupt damaged / cost
price fee charge expense expensive / cough coughing / count tally total / counterfeit fake forged / country nation /
countryside rural / couple pair / courgette zucchini / courier delivery carrier / courteous polite / cover include /
cover lid / crash fail failure / crave want / crazy mad insane / create make build generate produce develop write /
creator inventor maker / creature being / creepy scary / crew team / crime offence offense / criminal offender /
criteria requirement / critical crucial vital / cross angry / crowd group / cruel mean / crush love / crush squash /
cry emotional tears / cupboard closet wardrobe / curb reduce / cure fix / cure treat remedy heal treatment / curious
interested / currency money / currently now presently / curriculum syllabus / custom personal / customer client buyer
/ cut chop / cut injury / cut reduction / cute adorable / cyclist biker / dad parent / daily day / damage harm hurt
injure / damage ruin break / damaged broken defective / damp wet moist / dance dancing / danger risk hazard /
dangerous deadly risky harmful / dangerous hazardous risky unsafe / dark dim / dash run / dashboard panel / data
figures statistics / data information / date day / deadline due / deadly lethal fatal / deaf hearing / deal offer
discount / deal sale / debt loan / debug troubleshoot diagnose / decay rot / deceased dead / decent good / decide
choose determine / decline reject refuse deny / declutter organize tidy clean / decor decoration decorate / decorate
adorn / decrease decline / decrease reduce lower cut drop lessen / dedicated committed / deduct subtract / deed act /
defeat overcome / defect problem / defend protect / deficiency lack shortage / deficit lack / define explain meaning
definition / delay late wait / delayed late / delete deactivate / delete remove erase clear drop discard / deliberate
intentional / delicious tasty yummy / delight joy / deliver bring / deliver ship delivery shipping / demand need
require / demonstration protest / denied declined rejected refused / dense thick / dentist dental / department
division unit / depend rely / dependency package / depict show / deploy release publish / deployment deploy release /
depressed sad down / depressing sad / depression depressed / depression sad / describe outline tell / desert abandon /
deserve merit earn / design plan / desire want wish / despise hate / destination arrival / destination place spot
attraction / destination places spots / destroy ruin / destroy wreck / detach remove / detail info / detail specifics
/ detect discover find identify spot / deter prevent stop / detergent soap / deteriorate worsen / determine find /
develop grow / developer programmer engineer coder / devote dedicate / diagnose identify / diagram chart figure / die
death dead / diet eat food / diet nutrition / differ vary / difference change / difference distinction differ
different versus vs compare comparison / difficult hard tough challenging / difficulty problem trouble / dig excavate
/ dilemma problem / dimension size / diminish reduce / dinner supper / dip fall / direct guide / direction instruction
/ direction route / director direct / directory folder / dirty filthy / disagree argue / disappear vanish gone /
disappointed upset unhappy / disaster catastrophe / discard bin / discharge release / disclose reveal / discontinue
stop / discount cheaper / discount coupon voucher promo code offer / discount sale reduction / discover discovery find
/ discover explore find / discovery invention / discrepancy difference / discuss talk / discussion thread conversation
topic / disease illness sickness / disgusting gross / dish meal recipe / disinfect sanitize sterilize / disk drive
storage / disorder disease condition / dispatch send ship / display show view / disposable throwaway single / dispose
discard / dispute challenge / dispute complaint / disregard ignore / disrupt interrupt / dissolve melt / distance far
/ distant far / distinct different / distinguish differentiate tell / distress upset / distribute hand / district area
neighborhood / disturb bother / dive plunge / diverse varied / divide division / divorce separation / dizzy
lightheaded / doctor physician gp / doctor physician medic / doctrine belief / document file / document paper
paperwork / dodge avoid / dog puppy / dollar usd buck / domestic home / dominant main / dorm dormitory / dose amount /
dose dosage / doubt question / downgrade lower / download get fetch / download install / downtown centre center /
dozens many / draft write / drag pull / dramatic drama / draw sketch / drawback disadvantage con / drawing draw /
drawing picture / drawing sketch art / dread fear / dress outfit / drill practice / drink beverage / drop decline /
drowsy sleepy / drunk intoxicated / dumb stupid / duplicate copy clone / duplicate dup repost copy / durable lasting
strong / duration long length / during while / duty responsibility obligation / duty tax / dwell live / eager keen /
earlier previous / earn gain / earn make / earthquake quake / easily simple / easy simple effortless straightforward /
eco green sustainable environmental / eco-friendly sustainable / economic economical / edible eat / edit revise /
editor ide / educate teach / education schooling / effect impact influence consequence result / effective productive
efficient / effort work / eject remove / elaborate explain / elderly senior / electricity power / elegant stylish /
elevator lift / eligible qualify qualified / eliminate remove / embarrassed ashamed / emergency urgent / emigrate move
/ emit release / emotion feeling / emphasis stress / emphasize stress / employee personnel / employee worker staff /
employer boss company / enable turn / encounter meet / encourage motivate / encryption encrypted / end finish conclude
stop / endanger threaten / endless infinite / endpoint url route / endure last / enemy foe / energy power / engage
hire / engaging interesting / engine motor / enlarge expand / enlarge increase grow / enlist join / enquire ask
inquire / enquiry question / enrol enroll register join / enroll sign / ensure make / enter input type / enter put
input / entertain amuse / entertaining fun amusing / entertainment fun / enthusiastic keen / entire all / entitled
eligible / envelope letter / environment surroundings / envy jealous / epic great / equal same / equipment gear tool /
equity share / error exception failure problem bug issue / escape flee / essay paper / essential necessary vital
needed important / establish create / establish found set / estate property / estimate guess approximate / eternal
endless / etiquette manner rule / evacuate leave / evaluate assess judge / evaluate review / event happening /
eventually finally / everyone everybody people / evil bad / evolve develop / exam test finals / examine inspect study
/ examine review / example sample instance illustration demo / exceed over / excellent great / excellent outstanding
superb / exceptional outstanding / excess extra / excessive much many / excessive too heavy overuse / exchange swap
return / excited thrilled / exciting thrilling / exclude omit / excursion trip / executive manager / exercise activity
/ exercise workout gym fitness / exercise workout training / exhausting tiring / exhibit display / exhibit show /
exile banish / exist already / exist available / exit quit leave / expand increase / expect anticipate / expedition
trip / expense spending / expensive costly pricey dear / experienced skilled / experiment test trial / expert
specialist / expiration expiry / explain describe clarify / explained guide explanation / explanation reason / explode
burst / explore visit discover / expose reveal / express say / extend lengthen / extend prolong / exterior outside /
external outside / extra additional another / extract pull / extreme severe / eyeglasses glasses spectacles / fabric
cloth / fabric material / face confront / facial face / factor cause / factory plant / faint dizzy / faint weak / fair
just / faith trust / fall autumn / false wrong untrue / familiar known / famous well-known known / famous well-known
popular renowned celebrated / fan enthusiast follower / fan supporter / fancy like / fantastic great / fantasy magic /
fare price cost fee / farewell goodbye / fashion style / fast quick rapid speedy / fasten attach / fat overweight
obese / father dad / fatigue tiredness / faucet tap / fault mistake / favour favor / fear anxiety afraid phobia / fear
phobia scared / feasible possible / feature characteristic / feature function capability / feeble weak / feedback
review opinion / feel experience feeling / female woman / festival celebration / fetch bring / fetch get retrieve pull
/ fever temperature / field property attribute / file folder / fill complete / film movie cinema / film movie picture
/ film show / filter restrict limit narrow / filter sort / finance fund money / find locate search discover look get /
fine good okay / finish complete end / finish over / fire blaze / fire dismiss sack / fire flame / firm hard / firm
strict / fit exercise / fit healthy / fit suit / fitness health / fix repair solve resolve correct troubleshoot mend /
fizzy sparkling carbonated / flag banner / flag report / flat apartment / flatmate roommate / flavor taste flavour /
flaw defect / flaw problem / flight fly plane / flood flooding / floor ground / flower bloom / flu influenza / fluent
fluency speak / focus concentrate attention / folk people / follow obey / following next / food meal dish cuisine /
foolish stupid silly / football soccer / forbid ban prohibit / force power strength / forecast prediction outlook /
foreign abroad overseas international / foreigner alien / forest woods / forget forgot / forgotten lost / form create
/ form document / form shape / format style layout / former previous ex past / formula equation / fortunate lucky /
fortune luck / forum community board / forum thread discussion / foster encourage / found founded founder create
established started / fragile delicate / fragrance scent / frail weak / framework structure / frank honest / free
gratis / freelance contract / freeze block lock / freeze hang crash / freight shipping / frequent often / fresh new /
freshman student / friend buddy pal / friendly kind nice / friendly welcoming / friendship friend / fright scare /
frightening scary / frozen stuck / frustrated annoyed / fulfil fulfill meet / fulfilling satisfying / full whole / fun
enjoyable / function method procedure routine / fund money funding / fundamental basic / funding scholarship grant aid
/ funds money balance / funeral burial / funny humorous hilarious comic comedy / furious angry / future scope / gadget
device tech / gain get / gallery photo / gamble bet wager / game match / game play / gamer gaming player / garbage
trash rubbish waste / gas petrol fuel gasoline / gathering party / gaze look / gem jewel / general common / genre type
/ genuine authentic real / get obtain receive acquire fetch / getaway trip vacation / ghost spirit / giant huge / gift
present / giggle laugh / girl woman / give provide offer / global international worldwide / globe world / glue stick
adhesive / goal aim objective target / god deity / good great / goods product item / gorgeous beautiful / govern rule
/ government govt / grade mark score / gradually slowly / graduate graduation / grandma grandmother granny / grandpa
grandfather / grant give / grasp hold / grateful thankful / grave tomb / greet welcome / grief sorrow / grip hold /
gripping thrilling suspenseful / grocery food shopping / gross total / group team / grow plant cultivate raise /
guarantee ensure / guaranteed certain / guest visitor / guide tutorial howto walkthrough instruction manual /
guideline policy rule / gun weapon firearm / habit custom / haircut hairstyle / halt stop / handle process / handy
useful / hang mount / happiness joy / happy glad joyful / harassment abuse / hardly barely / harmful dangerous bad /
hate dislike / head leader chief / headache migraine / health healthy / healthier healthy / healthy nutritious / heap
pile / heart cardiac / heartbreak breakup / heartbreaking sad / heartwarming touching / heat temperature / heat warm /
height tall high / help assist aid support / hidden secret / hide conceal / hide cover / highest tallest / highway
motorway freeway / hike trail / hike trek walk / hint clue / hire recruit employ / hobby pastime interest / hold
contain / hold keep / holder owner / hole gap / holiday vacation leave / holy sacred / home house / homepage site /
homesick homesickness / homesickness lonely / homework coursework / honest truthful / honor honour / horoscope
astrology / horrifying scary / hospital clinic / host organise / hotel accommodation lodging / hottest highest /
household family home / hug embrace / huge large big enormous / humour humor / hurdle obstacle / hurry rush / hurt
injure pain / hygiene cleanliness / hyperlink link / ice frozen / icon symbol / iconic famous / idea suggestion /
ideal perfect / identical same / identification id identity / ill sick unwell / illegal unlawful forbidden /
illumination light / image picture photo photograph / imaginative creative / imagine picture / imitate copy /
immediately instantly now / immigrate move / implement apply / importance important significance / impressive good /
imprisonment jail prison / improve enhance better boost increase optimize optimise / improvement improve / inaccurate
wrong / inbox mailbox mail / inbox message / incident event accident / include contain have comprise / increase raise
grow boost improve / independent independence / indicate show mean / indie independent / individual single / indoors
indoor inside / infection infected / influence affect effect impact / influencer creator / information details info /
informative educational / ingest swallow / inhabit live / inhabitant resident citizen / initial first / initialise
initialize init / initiate start / injure hurt wound / insect bug / inspiration inspire / inspirational motivational
inspiring / inspiring motivational uplifting / install setup set configure / instalment installment / instant
immediate / instruct teach / instrument tool / insurance cover coverage / insurance insured cover / intelligent smart
clever / intend plan / interest passion / interesting fun fascinating / internet connection network / internet wifi
network / interpret explain / introduce intro introduction / introvert shy / introverted introvert / invent create
invention inventor / invest investment investing / investigate examine / investigate look / invite invitation /
involve include / issue matter / issue problem error trouble bug / itinerary plan schedule / itinerary trip plan /
jealous envious / job position occupation role work / job work career position / jog run / join enter / joke funny /
joke pun / journaling journal diary / journalist reporter / jump leap / jumper sweater / junk rubbish / junk unhealthy
/ keep retain maintain / keep stay remain / key shortcut / keyboard typing / keyword term / kickstart begin / kidnap
abduct / kill murder / kill terminate end stop / kind type sort / kindly please / king monarch / label tag / labor
labour work / lady woman / laggy slow lag / landlord owner / landscape scenery / language tongue / laptop notebook
computer / large great / last final / last previous prior / latency delay lag / latest newest recent current / laundry
washing / lavatory toilet / law legal / layout design / leak drip / learn study master / learning study / leave quit
depart / lecture class / lecture talk / legal allowed permitted lawful / legend myth / legit genuine / legit reliable
trustworthy / lengthy long / liberty freedom / library package module / licence license permit / lifespan life / light
lamp / lighthearted funny feelgood / lighting light / like love enjoy / likely probable / limit quota / limit reduce
restrict / limit restriction cap maximum / link connect url / list enumerate lists / litter trash / live living reside
/ lively active / loan borrow credit / loan borrow lend / local nearby / locate located situated find where / location
place address where / log record / login signin sign log / logout signout sign log / lone alone / lonely alone
loneliness / loop iterate / lorry truck / lose lost misplace missing / lover fan / luck chance / luxurious luxury /
luxury expensive / lyrics words / magnificent great / maid cleaner / maiden unmarried / mail post email / mail send /
main major / maintain keep stay sustain / maintenance upkeep service / make take do get give / makeup cosmetics / male
man / malfunction fault failure broken / manage control administer / manage deal handle balance / manage run /
management administration / mandatory compulsory required obligatory / manga comic / manner way / manual handbook
instructions / manufacture make produce / manufacturer maker producer / marine sea / mark flag label / market sell /
marriage wedding marry / marry wed / marvelous wonderful great / massive huge / mate friend / maximize increase /
maximum max most / meal eat dish / meaning mean definition define / meaningful deep / measure gauge size / mechanic
garage / medical health / medicine medication drug pill tablet / meditate meditation / meditate mindfulness /
meditation mindfulness / meet satisfy / meeting appointment / meetup event / melody tune / memorable unforgettable /
memorise memorize remember / mental psychological / mention say / mentor guide coach / mentoring mentor / merchandise
goods product / merge combine join / message text sms / messy untidy / method way approach technique / metric measure
/ microphone mic / mild light / military army / mimic imitate / mingle socialize / mini small / minimal least /
minimalist simple / minimise minimize reduce / minimum min least / minor small / misplaced lost / mission task / mist
fog / mistake gotcha / mistake pitfall error / mistaken wrong / mistakenly accidentally / mix blend combine / mobile
phone cellphone smartphone / moderator mod admin / modern new current contemporary / modify change alter edit /
monetize earn / money cash fund / monitor track watch / monitoring monitor / month monthly / moral ethical / morals
ethics / mortgage loan / mother mum mom / motion movement move / motivate inspire / motivated focused / motivated
motivation inspired / motivation inspiration / motive reason / motto slogan / mountain peak / mouse pointer / move
relocate / move switch migrate change / multiple several / multiplication multiply / murder homicide / music song /
mute silence block / mysterious mystery / mystery detective crime / name called / nap sleep rest / nappy diaper /
narrative story / native local / natural organic / nature outdoors / near close nearby around / nearest closest near
nearby / neat tidy / necessary needed required / necessity need importance / need require want / negative minus /
neglect ignore / negotiate bargain / neighborhood neighbourhood area / neighbour neighbor / nervous nervousness /
networking network / new recent latest / new replacement / news headlines / nice good pleasant / night evening /
nightlife club / nightmare dream / noise sound / noisy loud / norm standard / normal usual typical / nostalgic retro /
notice see / notification message / notify alert inform / notify tell inform / novel book fiction story / novel new /
number integer / numerous many / nursery kindergarten preschool daycare / nutrient vitamin / nutrition nutrient / oath
pledge / object thing item / observe watch see / obtain earn / occasion event / occasionally sometimes / occupied busy
/ odd strange weird / odd unusual / offspring child / ok fine / okay fine alright / ongoing continuing / online
internet web / online virtual remote / only just sole / onset start / open launch / opening open hours / operate run /
operation procedure / opinion think view / opinion view thought / optimal best ideal / optimize improve speed /
optimum best ideal / option choice alternative / option setting preference / order purchase buy / order request apply
/ ordinary normal / organise organize arrange / organization organize / organized organization / origin beginning /
origin source begin / original first / outage downtime / outcome result / outdated old obsolete / outdoor outdoors /
outlet socket plug / outline sketch / outline structure / output result / overcharge charge / overcome conquer /
overcome control stop beat handle / overdue late / overlook miss / overwhelmed stressed / owe debt / own have possess
/ owner proprietor / pace speed / package deal bundle / page webpage / pain ache hurt sore / painful sore / paint
colour / paint draw / painter artist paint / painting art / pair match / pants jeans / paper article publication /
paperwork documents forms / parameter argument / parcel delivery / parcel package shipment order / parenting parent /
parse read / participant member / participate contribute / passage extract / passcode pin password / passenger
traveller traveler / passport travel / password passphrase / pattern template / pause stop / pavement sidewalk / pay
payment / paycheck salary wage / payment transaction / pc computer / peaceful calm quiet / peak top summit / peel skin
/ penalty fine / pending waiting outstanding / pension retirement retire / people population person humans / percent
percentage / perform do execute / perfume fragrance / permissible allowed permitted / permission access / permission
privilege right / persist continue / person human people someone / person individual human / perspective view / phase
stage / phone handset / photo picture image pic / pick collect / picture avatar / piece part / pillow cushion /
pinpoint locate / pitfall problem / place location spot site / place put / place spot venue / plan planning organize
prepare / plane airplane aircraft flight / plane flight airline / platform system / player athlete / playlist song /
pleased happy / pledge promise / plot story storyline / podcast show / poem verse / poison toxic poisonous / police
cop / political politics / pollute contaminate / poorly badly / pop-up popup / popular trending / popularity popular /
population people inhabitants / portion part share serving / position place / positive good / possibility chance /
post message thread / postcode zip zipcode / postpone delay / postpone reschedule / potential possible / pound gbp /
poverty poor / powerful strong / practice exercise train / pray prayer / predict forecast / pregnant expecting /
pregnant pregnancy / prepare ready / present current / present introduce / present presentation / present show /
president leader head / press push / pressing urgent / pressure stress / prevent avoid stop block / price cost rate /
pricing price / primary major chief principal / print output show display / printer print / private personal / prize
reward / problem gotcha / procedure process / procedure steps / processing pending / procrastinate procrastination
delay / procrastination procrastinating / produce yield / productive productivity / productivity efficient /
professional expert / profit gain / program application software app code / program show / progress advance / progress
status / prohibited forbidden banned / promotion offer / proof evidence / proper correct / propose suggest / protect
guard secure / protect keep / prove show demonstrate / proven effective / provide have / prune trim / psychiatrist
therapist psychologist / publish post / pulse heartbeat / punish penalize / punishment penalty / purpose point aim use
/ purpose reason goal / pursue do / put add insert / puzzle game / quantity number / quarrel argue / quarrel fight /
queen monarch / query question search / query request / question query ask / queue line / quick easy fast / quickest
fastest / quickly soon / quit leave stop / quiz test exam / rain rainfall / rainy wet / rank position / ranking rank
list / rapid swift / rapidly quickly / rash itch / rating review / react respond / reaction response / real true /
realise realize / realistic real / rear back / reason cause why / reasonable fair / rebate refund / receipt proof /
recent last / recently lately / recipe cook make dish / recognise recognize know identify / recognize tell identify /
recommend suggest advise / recover heal / recover restore retrieve / rectify fix correct / recycle reuse / redeem use
/ refresh reload / refrigerator fridge / refund reimburse reimbursement / refund return money / register enrol signup
subscribe / registration signup / regular normal / regularly often / regulate control / regulation rule law / relax
rest unwind / relaxing calming peaceful / reliable good / relieve ease soothe / religion faith / reload topup /
remainder rest / remember recall forget / remind reminder / remit send / removal delete / remove clean / remove stop
cure end / renovate remodel refurbish / rent lease / repair service / repeat loop / replace substitute swap / reply
respond answer / report claim / reproduce copy / requirement need / reschedule change / rescue save / research study /
reserve hold / reset change / reset restore restart / residence home / resign quit leave / resolution goal / resolved
solved answered / resource material / restart reboot relaunch / restaurant eat dine / restaurant eatery diner cafe /
restriction limitation / resume continue / resume cv / retention memory / retro vintage / return give / reveal show /
revenue income turnover sales / reverse undo / reversed reverted returned / revert undo / review check / review rate /
rewrite rephrase paraphrase / rhythm beat / rich wealthy / rise increase / river stream / road street / rock stone /
rocket spacecraft / rotate turn spin / route way path road / routine habit / row line record / rude impolite / rude
mean / rude offensive / rumor rumour / run execute launch / sad unhappy / salary compensation / salary pay wage
earnings income / satisfied happy / scarce rare / scene scenic / scenic beautiful / schedule calendar plan / school
education / score goal point / screen display monitor / screenplay script / screenshot screengrab / sculptor sculpture
/ sculpture statue / sea ocean / search lookup query / section part / secure protect safe / security safety protection
/ self-employed freelance freelancer / send transmit forward / separate split divide / serene peaceful / series saga /
series sequence show / server host machine / setting configuration option / severe serious / sew stitch / share split
/ shipping delivery postage / shore coast / shortcut hotkey / shout yell / shut closed / shutdown disable stop / shy
introverted / sight view / sightseeing attraction / sightseeing tour / sign symptom / significance importance meaning
/ silent quiet mute / similar comparable / similar like alike / simplest easiest / singer vocalist / single one / site
place website / size big large dimensions / size fit / skill ability talent / skinny thin / sleepless insomnia / slim
thin / slow sluggish / slowdown slow / small little tiny / smell odor odour stink / sneakers trainers / snippet
example / socialize meet / soil dirt earth / solo alone / solution answer fix / song track tune / sort order arrange
kind / sort rank / soundtrack score music / space room / spare extra / speak talk / speech talk / speed fast velocity
quick / spell spelling spelled / spicy hot / spooky scary halloween / squeak noise / stadium arena / stain spot mark /
standard default / standard normal / stare look / start begin / startup company business / starve hunger hungry / stat
statistics / station stop / statistics numbers / steady stable / steal stolen theft / stock share / stomach belly
tummy / stop prevent end / store keep preserve / store shop save keep / storm hurricane / story tale / storytelling
story / strategy plan / strategy tip technique / streaming stream / strengthen improve / string text / struggle
difficulty / student college / student pupil learner / stuff things / stuffy blocked / stunning beautiful / stylish
fashionable / subject topic / submit send / subreddit forum / subscribe join / subscription plan membership /
substitution substitute / subtitle caption / subtract minus / subway underground metro tube / succeed success / sue
court / suffer experience / suit outfit / suitable good / summary summarise summarize / summary summarize overview
recap / sunny clear / supervise manage / supplies stock / supply provide / support accept take / support help service
/ surgery operation / surname lastname / surprise unexpected twist / survey questionnaire / suspend pause / suspense
thriller / swallow eat keep / swap trade / sweat perspire / sweet candy / swelling swollen / symbolize represent mean
/ table grid / talk presentation / task job / tax taxes / taxi cab / teacher instructor tutor / teacher professor
tutor / team club / team squad / tear rip / tech technology / technique trick / teen teenager adolescent young /
television tv telly / template sample / tenant renter / terminate close cancel / terms conditions / terrible awful bad
/ test check exam / theme topic / theory hypothesis / therapy counselling counseling / therapy treatment / thesis
dissertation / think believe / thorough complete / threads discussions posts / throw raise / ticket pass / tie knot /
time hour / timeless classic / timetable schedule / tip advice trick hack / tip gratuity / tip guide / tired fatigue
exhausted / tired sleepy / title name headline / toilet bathroom restroom loo / tonight evening / tool utility /
topping ingredient / torch flashlight / total sum overall / tour trip / tour visit / tourist tourism / tourist visitor
/ town city / toxic unhealthy / track follow trace monitor / track locate follow / trail path / trailer preview /
train rail railway / translate translation / transmission gearbox / transportation transport / travel trip journey
visit / traveler tourist / traveling vacation / treaty agreement / tricks tips / trigger cause / trim cut / trip
journey travel vacation / trivia quiz / troubled worried / trousers pants / try attempt / tuition fee / tutorial
course / tutorial guide lesson / unauthorised unauthorized / unblock unclog unlock / unclear confusing / uncommon rare
unusual / unfamiliar unknown / unhealthy bad harmful / uninstall remove / unique unusual / universe world / unlock
open / unread new / unrecognised unrecognized unknown / unsubscribe cancel / unsuccessful error failed / upcoming new
/ upcoming next future / upgrade improve / upgrade update / upset sad / upvote like vote / urgently asap immediately
quickly / url link address / usage use / use utilise utilize apply employ / username handle / vacancy job / value
worth / vast huge / vegetables veggies / vegetarian meatless / vendor seller merchant / venue location / verdict
ruling / verify prove confirm / version edition / veterinarian vet / victim casualty / video clip / virus malware /
visa permit / visit go travel / visualise visualize plot / visualization chart / vitamin supplement / vocabulary words
/ volunteering volunteer / vomit throwup / voting vote / wallet purse / wallpaper background / want need wish / warn
alert notify / warning alert / warranty guarantee / water liquid / wealth money / weather forecast temperature / week
weekly / weekday day / weight fat / weight weigh heavy / wellbeing health wellness / whisky whiskey / wifi wireless /
wildlife animals / will testament / win winner won victory / withdraw withdrawal / witty funny / wood wooden / word
term / work function operate / working work / workload work / workplace office job work / world earth global / write
compose author / wrong incorrect / year yearly annual / yearn desire
"""

RELATED = grouped(_GROUPS)
"""Each word to the words of all its groups, itself among them."""
