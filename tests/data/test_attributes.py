"""Cities whose country, continent and language chapter 33 exchanges."""

from utils.data.attributes import LANGUAGES, PREFIX, QUESTIONS, city_facts


def test_every_city_has_all_three():
    facts = city_facts()
    assert len(facts) > 150 and len(set(facts.name)) == len(facts)
    assert set(facts.value) == set(QUESTIONS) and all(len(column) == len(facts) for column in facts.value.values())
    lagos = facts.name.index("Lagos")
    assert [facts.value[attribute][lagos] for attribute in QUESTIONS] == ["Nigeria", "Africa", "English"]
    assert set(facts.value["country"]) <= set(LANGUAGES)


def test_no_country_fills_the_list():
    country = city_facts(3).value["country"]
    assert max(country.count(name) for name in country) == 3


def test_two_cities_differ_if_they_have_nothing_in_common():
    facts = city_facts()
    tokyo, lagos, cairo = (facts.name.index(name) for name in ("Tokyo", "Lagos", "Cairo"))
    assert facts.differ(tokyo, lagos) and not facts.differ(lagos, cairo)


def test_all_questions_begin_with_the_name():
    assert all(question.startswith(PREFIX) and question != PREFIX for question in QUESTIONS.values())
