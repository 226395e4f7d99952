"""The sentences of `pods.backend.ContainerBackend`, tried on a real backend. Subclassed once a backend, with a `kit` fixture."""

from __future__ import annotations

import asyncio
import time

import pytest

from pods.errors import ImageMissing, PullRefused
from pods.spec import AGENT, SIDECAR
from tests.pods.conformance_pods import PodTests
from tests.pods.conformance_streams import StreamTests
from tests.pods.kit import IDLE, MIB, Kit, with_agent


class LookTests:
    """A pod and its containers' last lines at once, and health checks."""

    async def test_a_look_shows_the_pod_and_the_last_lines_of_each_container(
        self, kit: Kit
    ) -> None:
        spec = kit.spec("for n in 1 2 3 4; do echo line $n; done; exit 7", "echo up; " + IDLE)
        await kit.up(spec)
        await kit.until_exited(spec)
        for _ in range(2):  # the second time less is asked, and the answer is the same
            found = await kit.backend.look(spec.name, tail=3)
            assert found is not None
            state, lines = found
            assert state == await kit.backend.pod(spec.name)
            assert state.containers[AGENT].exit_code == 7
            assert [line.text for line in lines[AGENT]] == [b"line 2", b"line 3", b"line 4"]
            assert [line.text for line in lines[SIDECAR]] == [b"up"]

    async def test_a_look_at_what_is_not_there_is_none_also_when_it_was_there(
        self, kit: Kit
    ) -> None:
        spec = kit.spec()
        assert await kit.backend.look(spec.name, tail=3) is None
        await kit.up(spec)
        first = await kit.backend.look(spec.name, tail=3)
        assert first is not None
        await kit.backend.destroy(spec.name)
        assert await kit.backend.look(spec.name, tail=3) is None
        again = await kit.backend.create_pod(spec)
        second = await kit.backend.look(spec.name, tail=3)
        assert second is not None
        assert second[0].id == again.id != first[0].id

    async def test_a_check_that_fails_three_times_makes_a_container_unhealthy(
        self, kit: Kit
    ) -> None:
        healthy = ("sh", "-c", "test ! -e /tmp/sick || { echo it is sick; exit 1; }")
        spec = with_agent(kit.spec(), health_argv=healthy)
        await kit.up(spec)

        async def health(want: str) -> str:
            async with asyncio.timeout(kit.gives.health_seconds):
                while True:
                    assert await kit.backend.check_health(spec.name, AGENT)
                    state = await kit.backend.pod(spec.name)
                    assert state is not None
                    agent = state.containers[AGENT]
                    if agent.health == want:
                        return agent.health_said.strip()
                    await asyncio.sleep(0.2)

        assert await health("healthy") == ""
        await kit.sh(spec, "touch /tmp/sick")
        assert await health("unhealthy") == "it is sick"
        await kit.sh(spec, "rm /tmp/sick")
        assert await health("healthy") == ""

    async def test_checking_what_has_no_check_or_is_gone_does_nothing(self, kit: Kit) -> None:
        spec = kit.spec()
        assert await kit.backend.check_health(spec.name, AGENT)
        state = await kit.up(spec)
        assert state.containers[SIDECAR].health == ""
        assert await kit.backend.check_health(spec.name, SIDECAR)
        assert (await kit.backend.pod(spec.name)) is not None

    async def test_a_check_that_does_not_end_is_given_up(self, kit: Kit) -> None:
        spec = with_agent(kit.spec(), health_argv=("sleep", "60"))
        await kit.up(spec)
        began = time.monotonic()
        assert await kit.backend.check_health(spec.name, AGENT) is kit.gives.runs_checks
        assert time.monotonic() - began < 20


class ImageTests:
    """Images of the local store and of registries."""

    async def test_an_image_is_described_with_its_user_and_home(self, kit: Kit) -> None:
        spec = kit.spec()
        found = await kit.backend.image(spec.agent.image)
        assert found is not None
        assert (found.user, found.home) == ("1000:1000", "/home/agent")
        if kit.gives.has_store:
            assert found.env["HOME"] == "/home/agent"
            assert found.size_bytes > 100 * MIB

    async def test_an_image_that_is_there_is_not_pulled(self, kit: Kit) -> None:
        spec = kit.spec()
        assert await kit.backend.pull(spec.agent.image) == await kit.backend.image(spec.agent.image)

    async def test_a_registry_that_cannot_be_reached_is_told_within_seconds(self, kit: Kit) -> None:
        found = await kit.backend.image("registry.invalid/acme/tool:1")
        assert (found is None) is kit.gives.has_store
        began = time.monotonic()
        with pytest.raises(ImageMissing, match=r"registry\.invalid/acme/tool:1") as error:
            await kit.backend.pull("registry.invalid/acme/tool:1", print)
        assert time.monotonic() - began < 15
        assert "registry" in error.value.next_step

    @pytest.mark.parametrize(
        "reference",
        [
            "docker-archive:/etc/passwd",
            "oci:/tmp/image",
            "dir:/etc",
            "containers-storage:x",
            "../../v4.0.0/libpod/info",
            "UPPER/case",
            "a b",
            "",
        ],
    )
    async def test_only_a_plain_reference_is_pulled(self, kit: Kit, reference: str) -> None:
        with pytest.raises(PullRefused):
            await kit.backend.pull(reference)


class Conformance(PodTests, StreamTests, LookTests, ImageTests):
    """Everything that a backend must keep."""
