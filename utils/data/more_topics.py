"""Five more topics, of the form of `utils.data.topics`: where a comparison needs topics rather than texts.

All written for this course. The words were fixed before anything was run.
"""

from __future__ import annotations

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
