"""The graph of services between containers, and the policy of the hosted bus."""

from __future__ import annotations

from brickless.core import canonical
from brickless.core.services import BusPolicy, bus_policies, graph
from brickless.core.state import State, parse_state

SHA = "a" * 64


def state(**containers: tuple[object, object]) -> State:
    entries: dict[str, object] = {
        "#spec": "pantavisor-service-system@1",
        "device.json": {"groups": [{"name": "app"}]},
    }
    for name, (services, exports) in containers.items():
        entries[f"{name}/run.json"] = {"name": name, "config": "c", "services": services}
        entries[f"{name}/c"] = SHA
        if exports:
            entries[f"{name}/services.json"] = {"#spec": "service-manifest-xconnect@1", "services": exports}
    return parse_state(canonical.dumps(entries))


def test_a_consumer_gets_its_provider_s_socket() -> None:
    found = graph(
        state(
            db=({}, [{"name": "sql", "type": "unix", "socket": "/run/sql"}]),
            web=({"required": [{"name": "sql", "type": "unix", "role": "r", "target": "/run/db"}]}, None),
        ).containers
    )
    (link,) = found.links
    assert link[:8] == ("web", "db", "sql", "unix", "r", "", "/run/db", "/run/sql")
    assert found.faults == {}


def test_the_target_falls_back_to_the_interface_then_to_a_name() -> None:
    provider = ({}, [{"name": "x", "type": "rest", "socket": "/s"}])
    one = state(a=provider, b=({"optional": [{"name": "x", "interface": "/i"}]}, None))
    two = state(a=provider, b=({"optional": [{"name": "x"}]}, None))
    assert graph(one.containers).links[0].target == "/i"
    assert graph(two.containers).links[0].target == "/tmp/pvx_b_x.sock"
    assert graph(two.containers).links[0].role == "any"


def test_what_nobody_provides_is_a_fault_only_where_it_is_required() -> None:
    wish = [{"name": "sql", "type": "unix"}]
    rest = ({}, [{"name": "sql", "type": "rest", "socket": "/s"}])
    assert graph(state(a=rest, b=({"optional": wish}, None)).containers) == ((), {})
    fault = "it requires the service sql of type unix, which no container provides"
    assert graph(state(a=rest, b=({"required": wish}, None)).containers).faults == {"b": (fault,)}


def test_the_hosted_bus_is_there_for_owners_and_those_who_ask() -> None:
    export = {"type": "dbus", "bus": "system-bus", "owns": "org.x.Y", "role": "owner", "allow": ["user", "other"]}
    containers = state(
        a=({}, [export]), b=({"required": [{"name": "system-bus", "type": "dbus", "role": "user"}]}, None)
    ).containers
    found = graph(containers)
    assert found.needs_bus
    assert [(link.consumer, link.provider, link.role) for link in found.links] == [
        ("a", "_pv_", "owner"),
        ("b", "_pv_", "user"),
    ]
    assert bus_policies(containers) == [
        BusPolicy("other", (), ("org.x.Y",)),
        BusPolicy("owner", ("org.x.Y",), ()),
        BusPolicy("user", (), ("org.x.Y",)),
    ]
