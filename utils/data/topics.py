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
