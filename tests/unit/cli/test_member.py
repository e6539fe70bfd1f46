import json

from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


def test_list_by_way_of_any() -> None:
    members = [Member(1), Member(255)]
    with serving(*members):
        result = run("member", "list", "--endpoints", members[1].endpoint)
        assert result.stdout == (
            f"1, started, n1, , http://{members[0].endpoint}, false\n"
            f"ff, started, n255, , http://{members[1].endpoint}, false\n"
        )
        shown = json.loads(run("member", "list", "-w", "json", "--endpoints", members[0].endpoint).stdout)
        assert [member["ID"] for member in shown["members"]] == [1, 255]
        assert shown["header"]["cluster_id"] == 9
