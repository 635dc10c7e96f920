"""The pictures of chapter 33."""

from utils.intervals import Estimate
from utils.sae.survival import VERDICTS, ladder, survival_table


def test_the_highest_stands_on_top() -> None:
    fig = ladder({"low": Estimate(0.1, 0.0, 0.2), "trained": Estimate(0.9, 0.8, 1.0)}, "a score", {"chance": 0.5})
    assert list(fig.data[0].y) == ["low", "trained"]
    assert fig.data[0].marker.color[1] != fig.data[0].marker.color[0]
    assert fig.layout.xaxis.title.text == "a score" and fig.layout.annotations[0].text == "chance"


def test_each_verdict_has_its_cell_and_what_was_not_compared_has_none() -> None:
    found = Estimate(0.2, 0.1, 0.3)
    fig = survival_table({("frozen", "explains"): ("ahead", found), ("dense", "probes"): ("behind", found)})
    order = list(VERDICTS)
    assert [list(row) for row in fig.data[0].z] == [[order.index("ahead"), None], [None, order.index("behind")]]
    assert "+0.20" in fig.data[0].text[0][0] and fig.data[0].text[0][1] == ""
