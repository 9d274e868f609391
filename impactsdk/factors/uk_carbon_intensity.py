"""The carbon intensity of Great Britain's grid in this half hour, from the system operator's Carbon Intensity API.

What is asked is ``GET /intensity``, without a key; values are fetched by the user, published under CC BY 4.0, and nothing is
bundled. By its documentation (carbon-intensity.github.io/api-definitions) a value covers the CO2 of electricity generation
only: large power stations, imports, embedded wind and solar, and the losses of transmission and distribution, per kWh consumed.
That is neither a life cycle nor CO2e, and lies below what lifecycle tables say. ``actual`` is, in their words, an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from impactsdk.factor import Factor, Nature, Place
from impactsdk.factors.live import Held, LiveProvider, UnusableAnswerError, instant_ns, intensity_in
from impactsdk.semconv import ENV_PREFIX
from impactsdk.settings import Settings

__all__ = ["UkCarbonIntensity", "from_settings"]

_URL = "https://api.carbonintensity.org.uk"
_URL_VARIABLE = f"{ENV_PREFIX}UK_CARBON_INTENSITY_URL"
_LONGEST_SLOT_NS = 3_600_000_000_000


class UkCarbonIntensity(LiveProvider):
    """Grams of CO2 per kWh of the electricity consumed in Great Britain, for the current half hour.

    Only where the country is ``GB``, and not in Northern Ireland, which is on another grid. A value is used during its half
    hour and half an hour more, and is asked for anew every ``refresh_s``.

    Args:
        url: The root of the interface.
        timeout_s: Of connecting and of answering, seconds.
        refresh_s: Between two requests, seconds.

    Raises:
        ConfigurationError: An argument cannot be used, or ``requests`` is not installed.
    """

    name = "uk_carbon_intensity"
    title = "The Carbon Intensity API of Great Britain"
    url_variable = _URL_VARIABLE
    access_remedy = f"it needs no key: check the proxy and {_URL_VARIABLE}"
    zone_remedy = f"check {_URL_VARIABLE}"

    def __init__(self, *, url: str = _URL, timeout_s: float = 5.0, refresh_s: float = 300.0) -> None:
        super().__init__(url, timeout_s=timeout_s, refresh_s=refresh_s, fresh_s=1800.0)

    def zone_of(self, place: Place) -> str | None:
        """``GB`` or nothing."""
        return "GB" if place.iso2 == "GB" and place.code != "GB-NIR" else None

    def request(self, zone: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """``intensity``, which is always that of now."""
        return "intensity", {}, {}

    def read(self, document: object, zone: str) -> Held:
        """The intensity and its half hour.

        Raises:
            UnusableAnswerError: A field is missing or not credible.
        """
        slots = document.get("data") if isinstance(document, dict) else None
        slot = slots[0] if isinstance(slots, list) and slots else None
        intensity = slot.get("intensity") if isinstance(slot, dict) else None
        if not isinstance(slot, dict) or not isinstance(intensity, dict):
            raise UnusableAnswerError("data[0].intensity is missing")
        since_ns, until_ns = instant_ns(slot.get("from"), "from"), instant_ns(slot.get("to"), "to")
        if not 0 < until_ns - since_ns <= _LONGEST_SLOT_NS:
            raise UnusableAnswerError("from and to are not the ends of a half hour")
        word, nature = _best(intensity)
        since = datetime.fromtimestamp(since_ns // 1_000_000_000, timezone.utc)
        factor = Factor(
            kind="carbon_intensity",
            value=intensity_in(intensity.get(word), word),
            unit="g{CO2e}/(kW.h)",
            source=self.name,
            place=zone,
            year=since.year,
            scope="operational",
            nature=nature,
            note=f"CO2 of generation only, {word}, for the half hour from {since:%Y-%m-%dT%H:%MZ}.",
        )
        return Held(factor, since_ns, until_ns)


def from_settings(settings: Settings) -> UkCarbonIntensity:
    """The provider, at ``IMPACTSDK_UK_CARBON_INTENSITY_URL`` if that is set.

    Raises:
        ConfigurationError: The variable cannot be used, or ``requests`` is not installed.
    """
    return UkCarbonIntensity(url=settings.environ.get(_URL_VARIABLE, "").strip() or _URL)


def _best(intensity: Mapping[str, object]) -> tuple[str, Nature]:
    """Which of the two values to take: a half hour that has only begun may have no actual one."""
    return ("forecast", "forecast") if intensity.get("actual") is None else ("actual", "estimated")
