"""Topics to steer towards: sentences to learn them from, the words that count as success, openings to continue.

All written for this course. The words were fixed before anything was run.
"""

from __future__ import annotations

TOPIC_TEXTS: dict[str, tuple[str, ...]] = {
    "neutral": tuple("""
She put the keys on the kitchen table and sat down.
The bus was twenty minutes late again this morning.
He bought a new pair of shoes in the city centre.
Our neighbours painted their fence last weekend.
The recipe calls for two onions and a little salt.
I read the first chapter before going to bed.
The school will be closed on Friday afternoon.
They moved the sofa closer to the window.
My phone ran out of battery on the way home.
The library has a new section for magazines.
We planted tomatoes behind the house in April.
The cat slept on the chair for most of the day.
He wrote his name at the top of the page.
The lift was out of order, so we took the stairs.
She wore a green coat and a grey scarf.
The office is on the third floor of the building.
It rained for an hour and then the sky cleared.
Two students asked a question about the exam.
The bread was still warm when we got home.
He parked the car under a large tree.
The radio was on, but nobody was listening.
I forgot my umbrella in the restaurant.
They watched a film and went to sleep early.
The new teacher comes from a small village.
""".strip().splitlines()),
    "sea": tuple("""
The ship sailed out of the harbour and into the open sea.
Waves broke against the rocks along the coast.
The sailors pulled up their nets full of fish.
A lighthouse warned the boats of the reef.
We swam in the ocean and lay on the beach.
The tide came in and covered the sand.
The captain turned the boat towards the island.
Whales and dolphins swim in the deep blue water.
Salt spray blew over the deck of the ship.
Seagulls followed the fishing boats to the port.
The storm at sea lasted for three days and nights.
Divers explored the wreck at the bottom of the ocean.
The ferry crosses the bay every hour.
Children looked for shells along the shore.
The crew raised the sails and the ship left port.
The current carried the raft far away from the coast.
A wave lifted the small boat and dropped it again.
Crabs hide between the stones at low tide.
The fleet crossed the Atlantic in six weeks.
From the cliff we could see ships on the horizon.
The anchor held the vessel in the bay.
Sharks were seen near the beach this summer.
The old fisherman mended his nets on the pier.
The sea was calm and the water was clear.
""".strip().splitlines()),
    "war": tuple("""
The army crossed the border at dawn and the war began.
Soldiers dug trenches along the whole front.
The general ordered his troops to attack the city.
Bombs fell on the town for three nights.
The battle lasted two days and thousands were killed.
The enemy fired at the soldiers from the hill.
Tanks rolled through the empty streets.
The regiment lost half of its men in the war.
The prisoners of war were held in a camp.
Two nations signed a peace treaty after years of fighting.
The rebels captured the fort and took its guns.
The navy sank four ships in one battle.
Wounded soldiers were carried off the battlefield.
The troops marched towards the enemy.
The invasion was planned in secret by the generals.
Fighter planes attacked the airfield.
The city surrendered after a long siege.
A bullet hit the officer in the shoulder.
The militia fought against the invading army.
The war destroyed hundreds of villages.
He was killed in combat at the age of twenty.
The commander asked for more weapons and men.
The cannons opened fire on the walls.
Veterans of the war met at the memorial.
""".strip().splitlines()),
    "money": tuple("""
The bank raised its interest rates last week.
The company lost two million dollars last year.
He invested all his savings in stocks.
The price of bread has doubled since January.
Taxes on income will rise next year.
She paid the bill with her credit card.
The loan must be paid back with interest.
Our budget for this year is already spent.
The market fell and investors lost their money.
They sold the house for half a million dollars.
The treasury issued new bonds.
His salary is not enough to pay the rent.
The profits of the firm went up by ten percent.
She counted the coins and put them in her purse.
The rich man owed a fortune to the bank.
The government cut spending to reduce its debt.
Shares in the company are cheap today.
He earned fifty dollars for a day of work.
The fund pays a dividend every quarter.
Wages have not kept up with prices.
The cost of the project was three million euros.
The accountant checked the payments twice.
We saved some cash for the holiday.
The merchant made a good profit on the sale.
""".strip().splitlines()),
}
"""Two dozen sentences of each topic, and as many about nothing in particular ("neutral")."""
TOPIC_WORDS: dict[str, str] = {
    "sea": (
        r"(?<!\w)(oceans?|seas?|waves?|ships?|boats?|sail(?:s|ed|ing|ors?)?|beach(?:es)?|shores?|coasts?|coastal|"
        r"tides?|fish(?:es|ing|ermen|erman)?|harbou?rs?|ports?|islands?|whales?|sharks?|dolphins?|marine|"
        r"seaside|bay|vessels?|captain|crew|pier|swim|swimming|swam)(?!\w)"
    ),
    "war": (
        r"(?<!\w)(wars?|army|armies|soldiers?|troops?|battles?|battlefield|enem(?:y|ies)|fight(?:s|ing|ers?)?|fought|"
        r"military|weapons?|guns?|bombs?|attack(?:s|ed|ing)?|kill(?:s|ed|ing)?|generals?|tanks?|invasion|"
        r"combat|navy|siege|peace|defeat(?:ed)?)(?!\w)"
    ),
    "money": (
        r"(?<!\w)(money|banks?|dollars?|prices?|cost(?:s|ly)?|tax(?:es)?|pa(?:y|ys|id|ying|yments?)|loans?|debts?|"
        r"budgets?|profits?|invest\w*|stocks?|markets?|salar(?:y|ies)|wages?|cash|rich|financ\w*|econom\w*|"
        r"income|credit|funds?|bills?|coins?|cheap|expensive|\$\S+)(?!\w)"
    ),
}
"""A text that holds one of these words is a hit: regular expressions, whatever the case of the letters."""
MORE_TOPIC_TEXTS: dict[str, tuple[str, ...]] = {
    "music": tuple("""
The orchestra tuned its instruments before the concert.
She plays the violin and her sister plays the piano.
The band recorded a new album last winter.
He sang an old song and we all joined in.
The choir practises every Tuesday evening.
A drummer kept the rhythm for the dancers.
The singer forgot the words of the second verse.
Mozart wrote this melody when he was a child.
My guitar has six strings and one of them is broken.
The audience applauded the pianist for ten minutes.
We danced to jazz until the musicians went home.
The flute begins and the trumpets answer.
The composer finished his symphony in a month.
They hummed the tune of a famous opera.
The conductor raised his baton and the music began.
Her voice is too low for a soprano.
The record was played on every radio station.
He learned to play the drums at the age of six.
The rock band sold out the stadium.
Each note must be played softly.
The cello has a deep and warm sound.
The lyrics of this song are very sad.
A quartet played waltzes in the hall.
The organ and the choir filled the room with harmony.
""".strip().splitlines()),
    "religion": tuple("""
The priest blessed the people in the church.
They prayed to God every morning and every night.
The monks live in silence in their monastery.
The Bible was read aloud at the altar.
Pilgrims walk for weeks to reach the shrine.
The bishop spoke of sin and forgiveness.
Muslims fast from dawn until sunset in this month.
The temple is sacred to the Hindu gods.
Jesus told his disciples a parable.
The nuns sang a hymn in the chapel.
The rabbi explained the holy book to the children.
Her faith gave her strength in hard times.
The prophet spoke to his people of heaven.
The mosque was full for the Friday prayer.
Buddhists believe that the soul is born again.
The preacher gave a long sermon on Sunday.
The saint healed the sick by her prayers.
Christians celebrate the birth of Christ.
The angel brought a message from the Lord.
He was baptised in the river as a child.
The pope visited the cathedral last spring.
The worshippers lit candles and knelt down.
The devil tempted him, but he trusted in God.
The scriptures say that all men are brothers.
""".strip().splitlines()),
    "crime": tuple("""
The police arrested two men after the robbery.
The thief broke a window and stole the jewels.
The judge sent him to prison for five years.
A detective found the knife under the bed.
The murderer left no fingerprints at the scene.
The witness told the court what she had seen.
The gang had robbed three shops in one night.
His lawyer said that he was innocent.
The jury found her guilty of fraud.
The burglars escaped over the roof.
The suspect was questioned by two officers.
He was charged with theft and released on bail.
The victim could describe the man who had robbed her.
The prisoner escaped from his cell at night.
The sheriff put the outlaw in jail.
Criminals had smuggled the drugs in a lorry.
The inspector looked for evidence in the flat.
The trial of the kidnappers begins on Monday.
The police officer handcuffed the pickpocket.
The killer was caught after ten years.
The court sentenced the blackmailer to six months.
The stolen paintings were found in a cellar.
Nobody knows who committed the murder.
The guards searched the convicts for weapons.
""".strip().splitlines()),
    "sport": tuple("""
Our team won the match by two goals.
The striker scored in the last minute of the game.
The coach was angry with his players.
She ran the marathon in less than three hours.
The goalkeeper caught the ball with one hand.
The fans filled the stadium for the final.
He plays tennis twice a week with his brother.
The referee showed the defender a red card.
The champion lost the race by a second.
The athletes train every day for the Olympics.
The baseball player hit the ball over the fence.
They play football in the park on Saturdays.
The runner fell before the finish line.
The league begins its new season in August.
Our basketball team has lost every game.
The gymnast won a gold medal.
The cyclists raced up the mountain.
The boxer was knocked down in the third round.
The quarterback threw the ball to his team mate.
The tournament will be played in four cities.
The hockey team celebrated its victory.
The skier broke the record on the first day.
The swimmer trained for the championship.
The score was three to one at half time.
""".strip().splitlines()),
    "politics": tuple("""
The president was elected by a small majority.
The parliament voted against the new law.
The minister resigned after the scandal.
The senator gave a speech about the reform.
Two parties formed a government after the election.
The voters went to the polls in November.
The prime minister met the leader of the opposition.
Congress passed the bill after a long debate.
The mayor promised new schools in his campaign.
The republic has a new constitution.
The candidate lost by a thousand votes.
The conservatives want to change this policy.
The governor of the state vetoed the law.
Protesters asked the government to resign.
The ambassador spoke with foreign ministers.
The democrats won most of the seats in the senate.
The king handed his power over to parliament.
The committee of deputies discussed the treaty.
The politician answered none of the questions.
Citizens have the right to vote at eighteen.
The dictator ruled the country for thirty years.
The liberals and the socialists made a coalition.
The cabinet discussed the budget with the chancellor.
The referendum divided the nation.
""".strip().splitlines()),
}
"""Five topics more, for a comparison that is to say something about topics; written before anything was run on them."""
MORE_TOPIC_WORDS: dict[str, str] = {
    "music": (
        r"(?<!\w)(music\w*|songs?|sings?|sang|singing|singers?|bands?|orchestras?|concerts?|piano|pianist|violin|guitars?|drum\w*|"
        r"choirs?|melod(?:y|ies)|tunes?|rhythms?|albums?|jazz|operas?|symphon(?:y|ies)|compos(?:er|ers|ed)|instruments?|flutes?|trumpets?|"
        r"lyrics|danc(?:e|es|ed|ing)|cello|sopranos?|waltz(?:es)?|harmony)(?!\w)"
    ),
    "religion": (
        r"(?<!\w)(gods?|church(?:es)?|pray\w*|priests?|bishops?|bible|holy|sacred|relig\w*|faith|monks?|nuns?|temples?|mosques?|"
        r"jesus|christ|christians?|muslims?|jewish|hindu|buddhists?|saints?|angels?|heaven|sins?|souls?|prophets?|popes?|lord|preach\w*|"
        r"sermons?|altars?|worship\w*|devil|baptis\w*|scriptures?|rabbi|pilgrim\w*|chapel)(?!\w)"
    ),
    "crime": (
        r"(?<!\w)(crim\w*|police\w*|arrest(?:s|ed)?|thie(?:f|ves)|theft|steal\w*|stole|stolen|rob(?:bed|ber|bers|bery)|"
        r"murder\w*|killers?|prison\w*|jail|judges?|jury|court|guilty|innocent|detectives?|suspects?|witness\w*|victims?|lawyers?|"
        r"trial|gangs?|burglar\w*|fraud|evidence|inspector|sheriff|convict\w*)(?!\w)"
    ),
    "sport": (
        r"(?<!\w)(sports?|games?|teams?|match(?:es)?|goals?|goalkeeper|scor(?:e|es|ed|ing)|play(?:er|ers)|coach(?:es)?|"
        r"balls?|football|soccer|tennis|baseball|basketball|hockey|rac(?:e|es|ed|ing)|champion\w*|athlet\w*|olympic\w*|stadium|"
        r"referee|league|tournament|medals?|marathon|runners?|boxers?|cyclists?|skiers?|swimmers?|gymnast)(?!\w)"
    ),
    "politics": (
        r"(?<!\w)(politic\w*|government\w*|presidents?|parliament|ministers?|elect(?:ed|ion|ions)|vot(?:e|es|ed|ers?|ing)|"
        r"senat(?:e|or|ors)|congress|part(?:y|ies)|mayors?|governors?|laws?|candidates?|campaigns?|polic(?:y|ies)|republic\w*|"
        r"democra\w*|conservatives?|liberals?|citizens?|constitution|dictator|referendum|cabinet|ambassadors?|deputies)(?!\w)"
    ),
}
"""Their words, fixed together with the sentences."""
OPENINGS: tuple[str, ...] = tuple("""
It was a long day
I was thinking about the
This is a story about
I could not believe that
The best part of the
The students were asked to
When I opened the door
We walked for an hour
In my dream I saw
It is hard to say
I spent the whole day
She opened the box and
He picked up the phone
The train was late and
In the middle of the
The book on the table
She looked at me and
He wrote a letter about
The question is whether the
The next morning they found
The first thing I noticed
My friend gave me a
It all began with a
The picture on the wall
In the morning I saw
My brother has a new
I have always wanted to
Her favourite place is the
The town where I live
What I need is a
She told me about her
The two of them had
He dreamed of a life
A long time ago there
All I can see is
We finally arrived at the
My grandmother used to say
For my birthday I got
We were looking for a
I would like to tell
The film was about a
The woman next to me
The girl in the picture
As a child I loved
The old man told us
The last thing he said
The only sound was the
The plan was to meet
My neighbour told me that
I asked him about the
The room was full of
We sat down and talked
The dog ran into the
The meeting was about the
I remember the time when
The teacher asked us to
At the end of the
The doctor said that I
They had been waiting for
The boy ran to the
The house at the corner
The man at the door
Outside the window I saw
Our plan for today is
There is a small shop
The news today was about
After dinner they went to
The letter said that the
""".strip().splitlines())
"""Openings that may go on about anything; with the default model's tokenizer all of them have five tokens."""
ELSEWHERE: tuple[str, ...] = tuple("""
The committee will publish its report at the end of the month.
A red bicycle stood against the wall of the garage.
Please send the form back before the first of March.
The two rooms upstairs have been painted white.
He cut the paper into strips and glued them together.
Most of the visitors came from the north of the country.
The clock in the hall has stopped at half past nine.
You can find the address on the back of the envelope.
She learned to type when she was still at school.
The potatoes need to boil for another ten minutes.
Our train was full, so we waited for the next one.
There are three ways to solve this kind of problem.
The lamp on his desk was the only light in the room.
In autumn the leaves of this tree turn yellow.
I have never met the people who live upstairs.
The second half of the lecture was easier to follow.
""".strip().splitlines())
"""Sentences about nothing in particular, on which side effects are measured."""
