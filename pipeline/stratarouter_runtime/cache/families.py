"""Words of one root whose beginnings or endings hide it, in families. Data only; lower case, plain form, English.

In the same place they ask the same, as forms of one word do.
"""

from __future__ import annotations

from stratarouter_runtime.cache.lexicon import grouped

_GROUPS = """
ability able / absence absent / accuracy accurate / addition add additional / admission admit / advice advise / age
aging ageing old / allergy allergic / analysis analyze analyse analytical / anger angry / appearance appear /
application apply / approval approve / argument argue / arrival arrive / assistance assist assistant / attention
attend / availability available / bake baker bakery / beauty beautiful / begin beginning beginner / behave behavior
behaviour / belief believe / birth born / bleed blood bleeding / breadth broad / breath breathe breathing / brevity
brief / build building builder / burial bury / capability capable / caution cautious / centre central center / certain
certainty / chemistry chemical chemist / child childhood / choice choose / clarity clear clarify / climb climber /
clothes clothe clothing / cloud cloudy / coach coaching / cold coldness / collection collect / comfort comfortable /
comparison compare / competition compete / complaint complain / compliance compliant comply / conclusion conclude /
confidence confident
confidently / confusion
confuse confusing confused / consequence consequently / convenience convenient / conversion convert converter / cook
cooking cooker / courage
courageous / creation create creative creativity / criticism criticize criticise critic / cure curable / danger
dangerous endanger / dark darkness / day daily / death die dead deadly / decision decide / deep depth deepen / defence
defense defend / delivery deliver / dense density / departure depart / dependence depend dependent / description
describe / design designer / destruction destroy destructive / develop developer / difference differ different /
digestion digest / dirt dirty / discovery discover / discussion discuss / distance distant far / division divide /
drink drinking drinkable / drive driver driving / earth earthly / ease easy easily / economy economic economics
economical / education educate educational / effect effective / efficiency efficient / election elect electoral /
electric electricity electrical / emphasis emphasize / employ employment employer employee / energy energetic / entry
enter entrance / environment environmental / equal equality / evaporate evaporation / evolution evolve / exam
examination / existence exist / expansion expand / expense expensive / explanation explain / explosion explode /
expression express / extension extend / fail failure / fame famous / father fatherhood / feel feeling / fit fitness /
flexible flexibility / flight fly / freedom free / freeze frozen freezing / found founder / frequency frequent
frequently /
friend friendly friendship / fright
frighten / full fill fullness / fun funny / function functional / garden gardening gardener / generosity generous /
globe global / gold golden / government govern / growth grow / guilt guilty / happy happiness / hard hardness / hate
hatred / health healthy / heat hot heating / heavy heaviness / height high / help helpful / history historic
historical historian / honest honesty / hope hopeful / hunger hungry / hunt hunter hunting / ice icy / identity
identify identification / ill illness / imagination imagine / importance important / improvement improve / increase
increasing / industry industrial / infection infect / influence influential / information inform informative / injury
injure injured / insurance insure insured / intelligence intelligent / intention intend / introduction introduce /
invention invent inventor / investment invest investor / invitation invite / jealousy jealous / justify justification
/ kindness kind / knowledge know / large enlarge / law lawful legal / lead leader leadership / learn learner learning
/ legal legality legally / length long lengthen / life live living alive / location locate / logic logical / lonely
loneliness / loss lose lost / loud loudness / love loving lovely / luck lucky / luxury luxurious / maintain
maintenance / manage management manager / marriage marry married / math mathematics mathematical / maturity mature /
measure measurement / medicine medical medication / memory memorize memorise remember / method methodology / migrate
migration migrant / mix mixture / modern modernize / money monetary / moon lunar / mother motherhood / motivation
motivate motivated / movement move / murder murderer / music musician musical / mystery mysterious / nation national /
nature natural naturally / necessity necessary / need needed / nerve nervous / night nightly nocturnal / noise noisy /
nutrition nutritious nutritional / obesity obese / obey obedience / observe observation / occupy occupation / offence
offend offensive offense / operation operate / origin originate original / own owner ownership / pain painful / paint
painter painting / patience patient / payment pay / peace peaceful / perform performance performer / permission permit
/ person personal / persuade persuasion / philosophy philosopher philosophical / photo photography photographer
photograph / physics physical physicist / plan planning planner / plant planting / play player playing / poem poet
poetry / poison poisonous poisoning / politics political politician / pollution pollute pollutant / popularity popular
/ population populate populous / possibility possible possibly / poverty poor / power powerful / pray prayer /
precision precise / prediction predict / preference prefer / pregnancy pregnant / preparation prepare prep / presence
present / pressure press / prevention prevent preventive / pride proud / print printer printing / prison prisoner /
privacy private / probability probable probably / process processing processor / produce production product producer /
profession professional / profit profitable / program programming programmer / pronunciation pronounce / proof prove /
protection protect protective / provide provider provision / publication publish publisher / punishment punish /
purchase purchaser / quiet quietly / race racing racer / rain rainy rainfall / reaction react / read reading reader /
reality real / recognition recognize recognise / recommendation recommend / recovery recover / recruit recruitment
recruiter / reduction reduce / reference refer / refund refundable / refusal refuse / region regional / registration
register / regulation regulate / rejection reject / relation relate relationship / relaxation relax relaxing /
reliability reliable rely / religion religious / removal remove / renewal renew / rental rent renter / repetition
repeat / replacement replace / representation represent / requirement require / research researcher / residence reside
resident / resignation resign / resistance resist / respect respectful / response respond / responsibility responsible
/ restriction restrict / retirement retire retired / reversal reverse / revision revise / revolution revolutionary /
reward rewarding / rich riches / rise rising / risk risky / romance romantic / rotation rotate / royal royalty / run
runner running / sadness sad / safety safe safely / sail sailor sailing / sale sell seller / salt salty / satisfaction
satisfy satisfied / scare scary / science scientist scientific / secrecy secret / security secure / selection select /
sense sensation sensitive / separation separate / service serve / severity severe / shelf shelve / shine shiny / shock
shocking / short shorten shortage / sickness sick / sight see / sign signature / significance significant / silence
silent / similarity similar / simplicity simple simplify / sing singer singing song / size sizing / skill skilled
skillful / sleep sleepy asleep sleeping / smoke smoker smoking / society social / solution solve / space spatial
spacious / speaker speak speech / specialty special specialist specialize / speech speak / speed speedy / spell
spelling / spice spicy / stability stable stabilize / starvation starve / statistics statistical / storage store /
storm stormy / strange strangeness / strategy strategic / strength strong strengthen / stress stressed stressful /
structure structural / student study studying / stupidity stupid / style stylish / subscription subscribe subscriber /
subtraction subtract / success succeed successful successfully / suffer suffering / suggestion suggest / suicide
suicidal / suitability suitable / sum summation / summary summarize summarise / sun sunny solar / supply supplier /
supporter support / surgery surgeon surgical / surprise surprising surprised / survival survive survivor / sweat
sweaty / sweetness sweet sweeten / swim swimmer swimming / symbol symbolize symbolic / sympathy sympathize / symptom
symptomatic / system systematic / talent talented / taste tasty / tax taxation taxable / teach teacher teaching /
technology technical technological / temptation tempt / tension tense / terror terrorist terrorism / theft thief steal
/ theory theoretical / therapy therapist therapeutic / thickness thick / thirst thirsty / thought think / threat
threaten / tiredness tired / tour tourist tourism touring / tradition traditional / tragedy tragic / train training
trainer / translation translate translator / transmission transmit / transport transportation / travel traveler
traveling / treatment treat / trial try / trick tricky / tropics tropical / truth true / understanding understand /
union unite / usage use user useful / use useful / validity valid validate / value valuable / vary variation variety
various / victory victorious / violence violent / visibility visible / vision visual / visit visitor / volume
voluminous / vote voter voting / walk walker walking / war warfare / warmth warm / wash washing washer / water watery
/ waste
wasteful / weakness weak weaken / wealth wealthy / wed wedding / weight weigh / width wide widen / win winner winning
/ wind windy / winter wintry / wisdom wise / wood wooden / wool woolen / work worker working / worry worried worrying
/ worth worthy / write writer writing / year yearly / young youth youthful
"""

KIN = grouped(_GROUPS)
"""Each word to the words of all its families, itself among them."""
