"""The carbon intensity of a grid at this hour, from Electricity Maps.

Nothing of theirs is bundled: each value is fetched by the user with a token of the user's own, under the agreement that came
with it.

What is asked is ``GET /v3/carbon-intensity/latest?zone=FR`` with the header ``auth-token``; what comes back is the flow-traced
consumption mix of the zone, one value an hour. Where the interface does not know the zone, it would answer for the place that
the caller's address seems to be in; that is switched off, and an answer for another zone is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Place
from impactsdk.factors.live import Held, LiveProvider, UnusableAnswerError, instant_ns, intensity_in
from impactsdk.semconv import ENV_PREFIX
from impactsdk.settings import Settings

__all__ = ["ElectricityMaps", "from_settings"]

_URL = "https://api.electricitymaps.com/v3"
_TOKEN_VARIABLE = f"{ENV_PREFIX}ELECTRICITY_MAPS_TOKEN"
_URL_VARIABLE = f"{ENV_PREFIX}ELECTRICITY_MAPS_URL"
_ZONE_VARIABLE = f"{ENV_PREFIX}ELECTRICITY_MAPS_ZONE"
_HOUR_NS = 3_600_000_000_000


class ElectricityMaps(LiveProvider):
    """Grams of CO2e per kWh of the electricity consumed in a zone, for the current hour.

    A value is used during its hour and one hour more, and is asked for anew every ``refresh_s``. Without a place nothing is
    asked, also where a zone is given.

    Args:
        token: The key of your account with Electricity Maps.
        url: The root of the interface.
        timeout_s: Of connecting and of answering, seconds.
        refresh_s: Between two requests, seconds.
        zone: What to ask for, such as ``US-CAL-CISO``. Default: the country of the place, ``US``; which finer zone a state or a
            cloud region lies in is not certain, and so is never guessed.

    Raises:
        ConfigurationError: There is no token, an argument cannot be used, or ``requests`` is not installed.
    """

    name = "electricity_maps"
    title = "Electricity Maps"
    url_variable = _URL_VARIABLE
    access_remedy = f"set {_TOKEN_VARIABLE} to a token that is valid for this zone"
    zone_remedy = f"set {_ZONE_VARIABLE} to one of the zones that app.electricitymaps.com shows"

    def __init__(
        self,
        token: str | None = None,
        *,
        url: str = _URL,
        timeout_s: float = 5.0,
        refresh_s: float = 300.0,
        zone: str | None = None,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, refresh_s=refresh_s, fresh_s=3600.0)
        # The messages do not show the token: whoever has half of it may guess whose it is.
        if not isinstance(token, str) or not token.strip():
            raise ConfigurationError(f"{self.name}: there is no token; pass token=... or set {_TOKEN_VARIABLE}")
        if not re.fullmatch(r"[!-~]+", token.strip()):
            raise ConfigurationError(f"token (or {_TOKEN_VARIABLE}): expected printable ASCII without spaces")
        if zone is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{1,31}", zone.strip()):
            raise ConfigurationError(f"zone={zone!r} (or {_ZONE_VARIABLE}): expected a zone such as FR or US-CAL-CISO")
        self._token = token.strip()
        self._zone = None if zone is None else zone.strip()
        if self._zone is not None:
            self.without_place = (
                f"{self.title} is not asked for {self._zone} while it is not known where the machine stands: "
                f"set {ENV_PREFIX}REGION"
            )

    def zone_of(self, place: Place) -> str | None:
        """The zone that was given, else the country's code of two letters."""
        if self._zone is not None:
            return self._zone
        iso2 = (place.iso2 or "").upper()
        return iso2 if re.fullmatch("[A-Z]{2}", iso2) else None

    def request(self, zone: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """``carbon-intensity/latest`` of the zone."""
        return "carbon-intensity/latest", {"zone": zone, "disableCallerLookup": "true"}, {"auth-token": self._token}

    def read(self, document: object, zone: str) -> Held:
        """The intensity and its hour.

        Raises:
            UnusableAnswerError: A field is missing or not credible, or the answer is for another zone.
        """
        if not isinstance(document, dict):
            raise UnusableAnswerError("it is not a JSON object")
        if document.get("zone") != zone:
            raise UnusableAnswerError("it is not for the zone that was asked for")
        scope, is_estimated = document.get("emissionFactorType"), document.get("isEstimated")
        if scope not in ("lifecycle", "direct"):
            raise UnusableAnswerError("emissionFactorType is neither lifecycle nor direct")
        if not isinstance(is_estimated, bool):
            raise UnusableAnswerError("isEstimated is neither true nor false")
        since_ns = instant_ns(document.get("datetime"), "datetime")
        since = datetime.fromtimestamp(since_ns // 1_000_000_000, timezone.utc)
        factor = Factor(
            kind="carbon_intensity",
            value=intensity_in(document.get("carbonIntensity"), "carbonIntensity"),
            unit="g{CO2e}/(kW.h)",
            source=self.name,
            place=zone,
            year=since.year,
            scope=scope,
            nature="estimated" if is_estimated else "calculated",
            note=f"For the hour from {since:%Y-%m-%dT%H:%MZ}{_by(document.get('estimationMethod')) if is_estimated else ''}.",
        )
        return Held(factor, since_ns, since_ns + _HOUR_NS)


def from_settings(settings: Settings) -> ElectricityMaps:
    """The provider with the token of ``IMPACTSDK_ELECTRICITY_MAPS_TOKEN``, and ``..._URL`` and ``..._ZONE`` where they are set.

    Raises:
        ConfigurationError: There is no token, a variable cannot be used, or ``requests`` is not installed.
    """
    token, url, zone = (settings.environ.get(name, "").strip() for name in (_TOKEN_VARIABLE, _URL_VARIABLE, _ZONE_VARIABLE))
    return ElectricityMaps(token or None, url=url or _URL, zone=zone or None)


def _by(method: object) -> str:
    """How it was estimated, if the answer says it in a word."""
    return f", estimated by {method}" if isinstance(method, str) and re.fullmatch(r"\w{1,60}", method) else ", estimated"
