"""Texts for steering: contrast pairs, prompts to continue, in-context tasks, requests. All written for this course.

Contrast pairs differ in one thing and share as much of the rest as a sentence allows: what they share cancels in a difference of means.
"""

from __future__ import annotations

MOOD: tuple[tuple[str, str], ...] = tuple(tuple(line.split(" | ")) for line in """
I got the job and danced all the way home. | I lost the job and cried all the way home.
The party was wonderful and everyone was laughing. | The funeral was terrible and everyone was crying.
She smiled because the sun was shining on her garden. | She wept because the storm had ruined her garden.
My best friend came to visit and we had a great time. | My best friend moved away and I felt completely alone.
The doctor said that the baby was healthy and strong. | The doctor said that the baby was sick and weak.
What a beautiful morning, I feel so happy and free. | What an awful morning, I feel so sad and trapped.
He won the prize and thanked his proud parents. | He lost the case and hid from his angry parents.
The children cheered when the holidays began. | The children cried when their dog died.
I love this song, it fills me with joy. | I hate this song, it fills me with grief.
We celebrated our success with a delicious cake. | We mourned our failure in a cold, empty room.
The letter brought good news and she was delighted. | The letter brought bad news and she was devastated.
Our team played brilliantly and the fans were thrilled. | Our team played miserably and the fans were furious.
He kissed his wife and told her how grateful he was. | He shouted at his wife and told her how bitter he was.
The dinner was excellent and the guests were charming. | The dinner was disgusting and the guests were rude.
I woke up full of hope and energy. | I woke up full of fear and pain.
The kitten played happily in the warm grass. | The kitten lay dying in the cold rain.
They hugged each other and laughed with relief. | They blamed each other and screamed with rage.
It was the best holiday that we have ever had. | It was the worst holiday that we have ever had.
The teacher praised her and she glowed with pride. | The teacher mocked her and she burned with shame.
Grandmother is well again and the whole family is glad. | Grandmother is dead and the whole family is heartbroken.
The city celebrated peace with music and fireworks. | The city suffered war with hunger and destruction.
He found his lost ring and jumped for joy. | He broke his leg and groaned in agony.
I am lucky to have such kind and generous neighbours. | I am cursed to have such cruel and selfish neighbours.
The film was a delight, funny and full of love. | The film was a disaster, boring and full of hate.
She passed the exam and her heart was light. | She failed the exam and her heart was heavy.
The garden was lovely and the birds sang sweetly. | The prison was horrible and the guards hit hard.
We were safe, warm and happy together. | We were lost, cold and miserable apart.
His jokes were hilarious and nobody could stop smiling. | His lies were hurtful and nobody could stop crying.
The rescue was a success and all were saved. | The rescue was a failure and all were killed.
I enjoyed every minute of that amazing concert. | I regretted every minute of that dreadful concert.
The new house is perfect and we adore it. | The old house is ruined and we despair of it.
Thank you for this wonderful gift, it made my day. | Damn you for this nasty trick, it ruined my day.
""".strip().splitlines())
"""(happy, sad)."""
SEA: tuple[str, ...] = tuple("""
The waves rolled slowly towards the sandy beach.
A whale rose out of the ocean and dived again.
The sailors pulled the nets over the side of the boat.
At low tide the children look for shells and crabs.
The ship crossed the Atlantic in seven days.
Salt water splashed over the deck of the ferry.
Dolphins swam beside the boat as it left the harbour.
The lighthouse warns ships of the rocks near the coast.
Divers found a wreck on the bottom of the sea.
The island is surrounded by coral reefs.
Seagulls cried above the fishing boats in the bay.
The captain watched the horizon for a sail.
A storm at sea can last for many days.
The tide carried the raft out to the open ocean.
She loves to surf when the waves are high.
The submarine sank deeper into the dark water.
Sharks and turtles live in the warm current.
The pirates anchored their ship in a hidden cove.
The fishermen sold their catch at the docks.
Seaweed and driftwood lay along the shore.
The navy sent three ships to the gulf.
We could hear the surf from our tent on the dunes.
The crew raised the anchor and set the sails.
An octopus hid between the rocks under the pier.
""".strip().splitlines())
"""Sentences about the sea. Its opposite is nothing in particular: what they are compared with are OTHER_TOPICS."""
OTHER_TOPICS: dict[str, tuple[str, ...]] = {
    "kitchen": tuple("""
The cook chopped the onions and heated the pan.
Bread needs flour, yeast and a little patience.
She stirred the soup and added some pepper.
The oven was hot enough to bake the cake.
He peeled the potatoes and boiled them for dinner.
A good knife is the most useful tool in a kitchen.
The recipe asks for two eggs and a cup of sugar.
They washed the plates and dried the glasses.
The butter melted slowly on the toast.
Grandmother cut the apples for the pie.
The cheese was kept in a cool cupboard.
The waiter carried four bowls of rice to the table.
""".strip().splitlines()),
    "office": tuple("""
The manager called a meeting for nine in the morning.
She sent the report to her colleagues by email.
The printer on the second floor is out of paper.
He signed the contract and filed a copy.
The accountant checked the numbers twice.
Our department hired two new engineers.
The chairs in the conference room are uncomfortable.
They discussed the budget until noon.
The secretary answered the phone and took notes.
The deadline for the project is next Friday.
His desk was covered with folders and pens.
The company opened a branch in another town.
""".strip().splitlines()),
    "mountain": tuple("""
The climbers reached the summit before noon.
Snow covered the peaks and the high valleys.
A narrow path led up through the pine forest.
The shepherd drove his goats down the slope.
They spent the night in a hut below the glacier.
Eagles circled above the cliffs.
The air grows thin at such a height.
The road winds over the pass to the next valley.
A stone fell and rolled down the steep hillside.
The guide tied the rope to the rock.
Skiers waited for the lift at the bottom.
The village lies at the foot of the mountain.
""".strip().splitlines()),
}
FRENCH: tuple[tuple[str, str], ...] = tuple(tuple(line.split(" | ")) for line in """
Le chat dort sur la chaise près de la fenêtre. | The cat sleeps on the chair near the window.
Nous avons mangé une soupe avec du pain. | We ate a soup with some bread.
Mon frère travaille dans une petite ville. | My brother works in a small town.
Elle a perdu ses clés hier soir. | She lost her keys yesterday evening.
Il fait froid et la route est blanche. | It is cold and the road is white.
Les enfants jouent dans le jardin. | The children play in the garden.
Je ne sais pas où il habite. | I do not know where he lives.
Le train est parti à huit heures. | The train left at eight o'clock.
Vous avez une très belle maison. | You have a very beautiful house.
Mon père lit le journal tous les matins. | My father reads the newspaper every morning.
La porte était ouverte et la lampe allumée. | The door was open and the lamp was lit.
Ils ont acheté des pommes au marché. | They bought apples at the market.
Ma sœur apprend à jouer du piano. | My sister learns to play the piano.
Le médecin a dit que tout allait bien. | The doctor said that all was well.
Cette histoire est longue mais intéressante. | This story is long but interesting.
On peut voir la montagne depuis le pont. | One can see the mountain from the bridge.
Elle écrit une lettre à son amie. | She writes a letter to her friend.
Le voisin a deux chiens et un cheval. | The neighbour has two dogs and a horse.
Demain nous irons à la mer. | Tomorrow we will go to the sea.
Il a oublié son manteau dans la voiture. | He forgot his coat in the car.
""".strip().splitlines())
"""(French, the same in English)."""
