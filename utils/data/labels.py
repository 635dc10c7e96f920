"""Labels of thirty latents of the course SAE, written by hand for chapter 31.

The latents were drawn by a computer. Whoever wrote the labels was shown the six strongest examples of each in the
reading half of the corpus, and nothing else; one pattern got a forgotten space back after the first test. A pattern is
searched for in a piece of text that has the token in double brackets, whatever the capitals.
"""

LABELS: dict[int, tuple[str, str]] = {
    3260: ("'of' or 'with' that ends a set phrase", r"\b(in|on|by) \w+\[\[ (of|with|to)\]\]"),
    5999: ("regarded, treated (as something)", r"\[\[ ?(regard|treat|consider)\w*\]\]"),
    1259: ("the word 'great'", r"\[\[ ?great\w*\]\]"),
    5918: ("a simple dwelling: tent, hut, cottage, camp", r"cott\[\[age|\[\[ ?(tent|hut|cabin|camp|homestead|castle|cottage|shack|house|home|lodge|barn)s?\]\]"),
    4137: ("the word 'different'", r"\[\[ ?differen\w*\]\]"),
    300: ("school", r"\[\[ ?schools?\]\]"),
    1062: ("the month in 'the year ending June 30'", r"(end|commenc|beginn|clos)\w*( on)?( the)?( \d+ ?th)?\[\["),
    1827: ("'supp', 'upp', 'conv' inside a word", r"\[\[ ?(supp|upp|conv)\]\]"),
    1692: ("an adjective that intensifies: utter, strict", r"\[\[ ?(utter|manifest|strict|overwhelming|absolute|complete|sheer|total|entire|perfect|extreme)\w*\]\]"),
    4722: ("a day to celebrate: birthday, New Year", r"(s|new|memorial|labor|independence|christmas)\[\[ ?(day|year|eve)s?\]\]|\[\[ ?(birthday|anniversary|christmas|easter|thanksgiving)s?\]\]"),
    1338: ("advance, advanced, advancement", r"\[\[ ?advanc\w*\]\]"),
    3712: ("the preposition of where a thing is lying: in a bin", r"\[\[ ?(in|at|around|on|from)\]\]"),
    96: ("the ending -ness", r"\w\[\[ness(es)?\]\]"),
    2825: ("the comma after a condition in documentation", r"\b(if|when) [^.]{0,40}\[\[,\]\]"),
    243: ("bracket and comma in a list of numbers", r"\[\[[\])]+,\]\]"),
    1721: ("'not' in code", r"\[\[ ?~\]\]|[`~.]\[\[not\]\]"),
    5050: ("a forceful movement: burst, sweep, swallow", r"\[\[ ?(burst|swallow|sweep|swept|snatch|atched|absorb|rush|grab|seiz|plung|surg)\w*\]\]"),
    2804: ("no idea; 'so', 'two', 'who'", r"\[\[ ?(so|two|who|which)\]\]"),
    3958: ("making less: deduct, discount, diminish", r"\[\[ ?(deduct|discount|diminish|reduc|cancel|outweigh|subtract|lower)\w*\]\]|(deduct|canc|diminished|outweigh)\w*\[\["),
    738: ("as was said before", r"\[\[ ?(said|mentioned|referred|observed|stated|alluded|noted)\]\]|(said|mentioned|stated)\[\[ ?(before|above|earlier)\]\]"),
    4641: ("give, gives, gave", r"\[\[ ?(giv|gave)\w*\]\]"),
    619: ("the hyphen after a prefix", r"\w\[\[-\]\]"),
    27: ("hundreds, cardinal", r"\[\[ ?(hundreds|cardinal|altogether)\]\]"),
    5591: ("the words 'El' and 'bare'", r"\[\[ ?(el|bare|plain)\]\]"),
    3798: ("against", r"\[\[ ?against\]\]"),
    4240: ("the second of two things joined by 'and'", r"\w,? (and|or)\[\[ \w+\]\]"),
    294: ("'but' without a comma before it", r"\w\[\[ but\]\]"),
    4989: ("the letters 'ac'", r"\[\[ ?ac\]\]"),
    3363: ("what draws attention", r"\[\[ ?attention\]\]|attention (is )?(\w+ )?\[\[ ?to\]\]|(jump|occur|catch)\w*\[\[ (out|to|up)\]\]|\[\[ eye\]\]"),
    3745: ("astronaut, ideal, iron", r"\[\[ ?(astronauts?|ideal|iron)\]\]"),
}
