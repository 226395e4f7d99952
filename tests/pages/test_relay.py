"""What a target's page says of its relay."""

from __future__ import annotations

import pytest

from devaipod_web.targets import services
from pods.kubernetes_relay import RelayState
from tests.pages.conftest import HOSTILE
from tests.targets.conftest import kubeconfig

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(manager):
    text = kubeconfig(server="https://127.0.0.1:1")
    return services.save(manager, None, name="lab", kubeconfig_text=text, gateway_mode="relay")


def test_it_says_whether_the_forward_is_open_and_what_keeps_it(page, manager, cluster):
    services.note_relay(cluster.pk, RelayState(says=HOSTILE, next_step="Load the image."))
    text = page(manager, "target", cluster.key)
    assert "not open" in text
    assert "Load the image." in text
    assert "<script>alert" not in text
    state = RelayState(connected=True, address="10.1.2.3", says="The forward is open.")
    services.note_relay(cluster.pk, state)
    text = page(manager, "target", cluster.key)
    assert "The forward is open." in text
    assert "not open" not in text


def test_a_target_that_needs_none_says_nothing_of_it(page, manager, cluster):
    services.save(
        manager, cluster, name="lab", gateway_mode="direct", gateway_address="http://10.0.0.1:80"
    )
    assert "Relay" not in page(manager, "target", cluster.key).split("Settings")[0]
