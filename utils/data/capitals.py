"""Countries and their capitals, for chapter 00: those whose capital is one word that a small model may know.

Some tokenizers cut a few of these capitals in pieces; the chapter leaves those out. Countries stand as they do inside a
sentence, with their article.
"""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London", "Russia": "Moscow",
    "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw",
    "Hungary": "Budapest", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Portugal": "Lisbon", "Belgium": "Brussels", "Iran": "Tehran", "Iraq": "Baghdad",
    "Syria": "Damascus", "Kenya": "Nairobi", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Canada": "Ottawa",
    "South Korea": "Seoul", "Afghanistan": "Kabul", "Bulgaria": "Sofia", "the Czech Republic": "Prague",
    "Switzerland": "Bern", "the Netherlands": "Amsterdam", "Australia": "Canberra", "the Philippines": "Manila",
    "Israel": "Jerusalem", "Scotland": "Edinburgh", "Wales": "Cardiff", "Jamaica": "Kingston", "Tunisia": "Tunis",
}
