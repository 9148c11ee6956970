"""Names of several words that have a shorter or another name, for ``phrases``. Data only; lower case, English.

A line is ``phrase / phrase > words``.
"""

from __future__ import annotations

LIST = """
payment method / payment methods / forms of payment / form of payment / payment options > paymentmethod
ways to pay / methods of payment / modes of payment / means of payment > paymentmethod
order history / past orders / previous orders > orderhistory
gift card / gift cards / gift voucher / gift vouchers / gift certificate / gift certificates > giftcard
promo code / promo codes / promotion code / promotional code / discount code / discount codes / coupon code > coupon
voucher code / voucher codes > coupon
customer service / customer support / customer care / support team / service team / help desk / helpdesk > support
opening hours / business hours / store hours / working hours / hours of operation / opening times > opening hours
mobile phone / mobile phones / cell phone / cell phones / smart phone / smart phones / mobile number > phone
cell number / phone numbers / contact number > phone
zip code / zip codes / post code / post codes / postal code / postal codes > postcode
user name / user names / user id / login name / account name > username
web site / web sites > website
web page / web pages > webpage
home page / landing page / start page / front page > homepage
file name / name of the file > filename
folder name > foldername
time zone / time zones > timezone
data base / data bases > database
data set / data sets > dataset
data type / data types > datatype
code base > codebase
work flow / work flows > workflow
life cycle > lifecycle
life span / life expectancy > lifespan
air conditioner / air conditioners / air conditioning / air con / ac unit > aircon
operating system / operating systems > os
source code > code
pull request / pull requests / merge request / merge requests > pr
text message / text messages / text messaging > sms
social security number > ssn
social media / social network / social networks > socialmedia
driving licence / driving license / driver's license / drivers license / driver's licence > drivinglicence
driver license / driving licences / driving licenses > drivinglicence
real estate agent / real estate agents / estate agent / estate agents > realtor
real estate > property
gas station / gas stations / petrol station / petrol stations / filling station / service station > petrolstation
washing machine / clothes washer > washer
dish washer / dish washing machine > dishwasher
living room / sitting room > lounge
movie theater / movie theaters / movie theatre / movie house > cinema
high school / secondary school > highschool
primary school / elementary school / grade school > primaryschool
train station / railway station / rail station / train stations > trainstation
subway station / metro station / underground station / tube station > metrostation
parking lot / parking lots / car park / car parks / parking garage / parking space / parking spaces > parking
traffic jam / traffic jams > congestion
shopping cart / shopping basket / shopping trolley > cart
shopping mall / shopping center / shopping centre > mall
checking account / current account > checkingaccount
savings account / saving account > savingsaccount
bank transfer / wire transfer / bank wire > banktransfer
cash machine / cash machines / cash point / cash points / cash dispenser / cash machine's > atm
automated teller machine / automatic teller machine / atm machine / atm machines > atm
cash withdrawal / cash withdrawals / atm withdrawal / withdraw cash / withdraw money / withdrawing cash > withdraw
withdrawing money / take out money / take out cash / take money out / taking out money / taking out cash > withdraw
get cash out / get money out / pull out cash / pull out money > withdraw
pay slip / pay stub / wage slip / salary slip > payslip
pay rise / pay raise / salary increase / salary raise / wage increase > payrise
annual leave / paid leave / paid time off / pto / vacation days / holiday entitlement / leave days > paidleave
sick leave / sick day / sick days / medical leave > sickleave
notice period / period of notice > notice
curriculum vitae / resume > cv
human resources / hr department > hr
interest rate / interest rates / rate of interest > interest
exchange rate / exchange rates / conversion rate / currency rate / rate of exchange > exchangerate
identity check / identity verification / id check / id verification / identification check > verification
verify my identity / prove my identity / confirm my identity / verify identity / verify id > verification
prove identity > verification
artificial intelligence > ai
machine learning > ml
natural language processing > nlp
large language model / large language models / llms > llm
neural network / neural networks / neural net / neural nets > nn
object oriented programming / object-oriented programming > oop
user interface / user interfaces > ui
user experience > ux
application programming interface > api
graphics card / graphics cards / video card / video cards / graphics processing unit > gpu
central processing unit / processor / processors > cpu
random access memory > ram
solid state drive / solid state drives / solid-state drive > ssd
hard drive / hard drives / hard disk / hard disks / hard disk drive > hdd
flash drive / usb drive / usb stick / thumb drive / memory stick > usbstick
virtual machine / virtual machines / vms > vm
virtual environment / virtual environments / virtual env / virtualenv > venv
virtual private network > vpn
content delivery network > cdn
search engine optimization / search engine optimisation > seo
frequently asked questions / faqs > faq
return on investment > roi
gross domestic product > gdp
european union > eu
united nations > un
world war two / world war 2 / world war ii / second world war / ww 2 / wwii > secondworldwar
world war one / world war 1 / world war i / first world war / ww 1 / wwi > firstworldwar
san francisco > sf
body mass index > bmi
high blood pressure > hypertension
low blood pressure > hypotension
high cholesterol / elevated cholesterol > hypercholesterolemia
common cold > cold
first aid > firstaid
birth control > contraception
hay fever / pollen allergy > hayfever
stomach ache / stomach aches / stomach pain / stomach pains / tummy ache / belly ache / abdominal pain > stomachache
stomach hurts / tummy hurts / belly hurts / stomach cramps > stomachache
tooth ache / tooth pain / tooth hurts > toothache
head ache / head aches / head hurts > headache
back ache / back pain / back hurts > backache
ear ache / ear pain / ear hurts > earache
throat pain / throat hurts / throat is sore / sore throat > sorethroat
runny nose / running nose > runnynose
throw up / throwing up / threw up / vomiting > vomit
pass out / passing out / passed out > faint
work from home / working from home / wfh / work remotely / working remotely / remote work / home office > remotework
part time / part-time job > parttime
full time / full-time job > fulltime
open source / open-source > opensource
stand alone > standalone
real time > realtime
run time > runtime
long term > longterm
short term > shortterm
second hand / pre owned / pre-owned > secondhand
brand new > new
low cost / low priced / low budget / reasonably priced / budget friendly / budget-friendly / wallet friendly > cheap
high priced / high cost > expensive
best selling / best-selling > bestselling
kid friendly / kid-friendly / child friendly / child-friendly / family friendly / family-friendly > for family
with kids / with children > for family
dog friendly / pet friendly / pet-friendly > petfriendly
left over / left overs / left-over > leftover
sun rise > sunrise
sun set > sunset
grand father / grand dad > grandfather
grand mother > grandmother
k 8 s > kubernetes
business owner / business owners / business people / businessman / businessmen > entrepreneur
house plant / house plants / indoor plant / indoor plants > houseplant
full stack / full-stack > fullstack
front end / front-end > frontend
back end / back-end > backend
time complexity / runtime complexity / running time complexity / big o complexity / big o > timecomplexity
error message / error messages / error msg > error
stack trace / stack traces / traceback > stacktrace
command line / command-line / terminal > commandline
environment variable / environment variables / env var / env vars / env variable / env variables > envvar
key value / key-value > keyvalue
white space / blank space / blank spaces > whitespace
new line / line break / line breaks / newline character > newline
upper case / capital letters > uppercase
lower case / small letters > lowercase
double click > doubleclick
drop down / drop-down menu / dropdown menu / drop-down list > dropdown
pop up window > popup
log file / log files > log
unit test / unit tests / unit testing > unittest
to do list / to-do list / todo list / task list > todolist
cover letter / cover letters / covering letter / application letter > coverletter
thank you note / thank-you note / thank you letter > thanksletter
for loop / for loops > forloop
while loop / while loops > whileloop
do while > dowhile
if else / if-else > ifelse
try catch / try except > trycatch
switch case / switch statement > switchcase
out of memory / memory exhausted > outofmemory
science fiction / sci fi / sci-fi / scifi > sciencefiction
romantic comedy / romantic comedies / rom com / rom coms > romcom
tv show / tv shows / television show / television shows / tv series / television series > series
road trip / road trips > roadtrip
public speaking > publicspeaking
time management > timemanagement
self esteem / self confidence / self-confidence > confidence
mental health > mentalhealth
computer science > computerscience
video game / video games > videogame
board game / board games > boardgame
social life > sociallife
study abroad > studyabroad
financial aid > scholarship
well being / well-being > wellbeing
must have / must haves > essential
how tos / how to guide / how-to guide > guide
bed time > bedtime
lunch break > lunchbreak
birthday present / birthday gift / birthday presents / birthday gifts > birthday gift
christmas present / christmas presents / christmas gift / christmas gifts > christmas gift
physical activity / physical exercise / working out / work out / works out > exercise
heart rate / pulse rate > pulse
body temperature > temperature
nutritional value / nutrition facts > nutrition
number plate / license plate / licence plate > licenseplate
police officer / police officers / policeman / policemen > cop
fire fighter / fire fighters / fireman / firemen > firefighter
flight attendant / flight attendants / cabin crew / stewardess > flightattendant
hand luggage / hand baggage / carry on luggage / carry-on luggage / carry on bag / carry-on bag > handluggage
cabin bag / carry-on baggage / cabin baggage / cabin luggage > handluggage
checked luggage / checked baggage / checked bag / checked bags / hold luggage / hold baggage > holdluggage
boarding pass / boarding card > boardingpass
round trip / return ticket / round-trip ticket / return flight > roundtrip
one way ticket / one-way ticket / single ticket / one-way flight > oneway
public transport / public transportation / public transit / mass transit > publictransport
tourist attraction / tourist attractions / places of interest / sights to see / places to see > sight
bed and breakfast > bnb
two factor auth / multi factor authentication / multi-factor authentication / mfa > twofactor
one time password / one-time password / verification code / security code / one-time code / one time code > otp
"""
