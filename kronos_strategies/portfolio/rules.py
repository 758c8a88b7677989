"""PortfolioRules: how a ranking becomes a portfolio, as plain strings and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from kronos.config import as_number
from kronos.utils import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

BARS_PER_YEAR = 252  # for daily bars
Side = Literal["long", "long_short"]
Weighting = Literal[
    "equal", "score", "inverse_volatility", "risk_parity", "volatility_target", "kelly",
    "min_variance", "mean_variance", "min_cvar", "mean_cvar", "min_drawdown_cvar", "mean_drawdown_cvar",
]  # fmt: skip
COLUMNS: dict[str, tuple[str, ...]] = {  # of the signals, that a weighting reads besides `rank_by`
    "inverse_volatility": ("volatility",),
    "risk_parity": ("volatility",),
    "volatility_target": ("volatility",),
    "kelly": ("risk_adjusted", "deviation"),
}
SCENARIO_WEIGHTINGS = tuple(name for name in get_args(Weighting) if name.startswith(("min_", "mean_")))
NOT_NEGATIVE = (
    "rank_buffer", "n_drop", "max_turnover", "max_participation", "no_trade_band", "correlation_bars",
    "scenario_bars", "risk_aversion", "turnover_cost",
)  # fmt: skip
WHOLE = {
    "topk": "instruments",
    "rank_buffer": "instruments",
    "n_drop": "instruments",
    "correlation_bars": "bars",
    "scenario_bars": "bars",
}


@dataclass(frozen=True)
class PortfolioRules:
    """How a ranking becomes a portfolio; every field is a plain string or number, so that YAML can set it.

    Attributes:
        rank_by: column of the signals to rank by, highest first.
        topk: number of positions per side; unfilled positions stay in cash.
        quantile: share of the ranked instruments that a side holds, in place of `topk`; 0 to use `topk`.
        rank_buffer: an instrument enters among the best `topk` and leaves once it is no longer among the best
            `topk + rank_buffer`, so a side holds topk to topk + rank_buffer instruments.
        n_drop: maximum number of positions per side that are replaced at a rebalance because others rank better;
            the worst leave first, and a side that holds too many is not refilled. 0 for any number.
        side: "long" buys the best, gross = net = 1 - cash_buffer. "long_short" also sells the worst short by the
            same rules: gross 1 - cash_buffer, half of it on each side, net 0 when both sides fill their slots.
        weighting: sizes of the chosen. "equal"; "score", in proportion to the distance of `rank_by` from its median
            over all ranked instruments; "inverse_volatility", in proportion to 1 / sampled volatility;
            "risk_parity", equal contributions to the variance of a side, which is inverse volatility unless
            correlations are given; "volatility_target", inverse volatility with its gross exposure lowered, never
            raised, to meet the target volatility; "kelly", kelly_fraction * (1 - shrinkage) * mean / variance of
            the sampled returns, lowered if the sum exceeds what is to be invested. The others optimize over joint
            scenarios of the sampled paths, see `kronos_strategies.portfolio.optimization`: "min_variance",
            "min_cvar" and "min_drawdown_cvar" minimize a risk, "mean_variance", "mean_cvar" and
            "mean_drawdown_cvar" maximize the mean return less `risk_aversion` times that risk, both after
            `turnover_cost` and within the caps.
        target_volatility: portfolio volatility per year; used by "volatility_target" only.
        correlation: correlation that is assumed between any two instruments where none are given; sampled paths,
            which are independent across instruments, do not estimate it. Measured on 60-bar windows: .20 to .33
            for daily shares (median of CSI 300, Nifty 50, S&P 500), .64 for hourly crypto.
        correlation_bars: bars up to the date from whose returns correlations are estimated, shrunk halfway to
            `correlation`; 0 to assume `correlation`. Used by "risk_parity" and "volatility_target".
        scenario_bars: bars before the date from which joint scenarios take their dependence.
        cvar_tail: share of the worst scenarios, in (0, 1), whose mean loss or drawdown is the CVaR.
        risk_aversion: weight of the risk against the mean return in "mean_cvar" and "mean_drawdown_cvar", and of
            half the variance in "mean_variance", where 1 is full Kelly.
        turnover_cost: cost of a trade, as a fraction of its value, that the optimizations expect.
        kelly_fraction: share of the full Kelly weight, in (0, 1]; used by "kelly" only.
        shrinkage: share by which the sampled mean is shrunk to 0 before it sizes a position, in [0, 1); used by
            "kelly" and the optimizations of the mean.
        bars_per_year: bars per year, used to annualize volatility.
        max_weight: largest absolute weight of an instrument; the excess stays in cash.
        max_industry_weight: largest sum of absolute weights of an industry; the excess stays in cash.
        max_turnover: largest sum of absolute changes of weights at a rebalance; sales and purchases are limited by
            the same share, the largest trades come first. 0 for no limit.
        max_participation: largest trade in an instrument, as a share of its traded amount per bar. 0 for no limit.
        cash_buffer: share of equity that is never invested, for costs and for prices that open higher.
        no_trade_band: an existing position is rebalanced only if its weight changes by at least this much; entries
            and exits always trade. A position may exceed a cap by less than the band.

    Raises:
        ValueError: a field is unknown or out of range.
    """

    rank_by: str = "score"
    topk: int = 50
    quantile: float = 0.0
    rank_buffer: int = 0
    n_drop: int = 0
    side: Side = "long"
    weighting: Weighting = "equal"
    target_volatility: float = 0.15
    correlation: float = 0.3
    correlation_bars: int = 0
    scenario_bars: int = 250
    cvar_tail: float = 0.1
    risk_aversion: float = 1.0
    turnover_cost: float = 0.001
    kelly_fraction: float = 0.25
    shrinkage: float = 0.5
    bars_per_year: int = BARS_PER_YEAR
    max_weight: float = 1.0
    max_industry_weight: float = 1.0
    max_turnover: float = 0.0
    max_participation: float = 0.0
    cash_buffer: float = 0.02
    no_trade_band: float = 0.005

    def __post_init__(self) -> None:
        _choice("side", self.side, get_args(Side))
        _choice("weighting", self.weighting, get_args(Weighting))
        for field in fields(self):
            if field.type in ("int", "float"):
                object.__setattr__(self, field.name, as_number(field.name, getattr(self, field.name)))
        for name, unit in WHOLE.items():
            value = float(getattr(self, name))
            if not value.is_integer():
                raise ValueError(f"{name}={value} is not a number of {unit}. Pass a whole number.")
            object.__setattr__(self, name, int(value))
        _within("topk", self.topk, self.topk >= 1, "at least 1")
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            _within(name, value, value >= 0, "at least 0")
        _within("quantile", self.quantile, 0 <= self.quantile <= 1, "in [0, 1], e.g. 0.1, or 0 to use topk")
        _within("target_volatility", self.target_volatility, self.target_volatility > 0, "above 0, e.g. 0.15")
        _within("correlation", self.correlation, 0 <= self.correlation <= 1, "in [0, 1]")
        _within("cvar_tail", self.cvar_tail, 0 < self.cvar_tail < 1, "between 0 and 1, e.g. 0.1")
        _within("shrinkage", self.shrinkage, 0 <= self.shrinkage < 1, "in [0, 1)")
        _within("bars_per_year", self.bars_per_year, self.bars_per_year > 0, "above 0, 252 for daily bars")
        for name in ("kelly_fraction", "max_weight", "max_industry_weight"):
            value = getattr(self, name)
            _within(name, value, 0 < value <= 1, "in (0, 1]")
        _within("cash_buffer", self.cash_buffer, 0 <= self.cash_buffer < 1, "in [0, 1)")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the signals without which an instrument cannot be sized, besides `rank_by`."""
        return COLUMNS.get(self.weighting, ())

    @property
    def uses_scenarios(self) -> bool:
        """Whether the weighting optimizes over joint scenarios of sampled paths."""
        return self.weighting in SCENARIO_WEIGHTINGS

    def positions(self, ranked: int) -> int:
        """Number of positions per side among this many ranked instruments."""
        return max(1, int(self.quantile * ranked + 1e-9)) if self.quantile else self.topk


def rules_of(values: Mapping[str, object]) -> PortfolioRules:
    """Rules from fields by name; those left out keep their defaults.

    Raises:
        ValueError: a name is unknown, or a value out of range.
    """
    return with_fields(PortfolioRules(), values)


def with_fields(base: Settings, values: Mapping[str, object]) -> Settings:
    """Settings with some fields changed, by name.

    Args:
        base: dataclass with strings and numbers, such as `PortfolioRules`.
        values: new values by field.

    Raises:
        ValueError: a name is unknown, or a value out of range.
    """
    known = [field.name for field in fields(base)]
    if unknown := [name for name in values if name not in known]:
        hint = did_you_mean(str(unknown[0]), known) or f"Choose among {known}."
        raise ValueError(f"'{unknown[0]}' is not a field of {type(base).__name__}. {hint}")
    return replace(base, **values)


def parse_rules(text: str) -> PortfolioRules:
    """Rules from text such as "topk=50,rank_buffer=25,weighting=inverse_volatility".

    Raises:
        ValueError: the text has another form, a name is unknown or occurs twice, or a value is out of range.
    """
    return rules_of(parse_fields(text))


def parse_fields(text: str) -> dict[str, object]:
    """Values by field from text such as "topk=50,weighting=equal"; numbers as numbers.

    Raises:
        ValueError: the text has another form, or a name occurs twice.
    """
    values: dict[str, object] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = map(str.strip, part.partition("="))
        if not equals or not value:
            raise ValueError(
                f"'{part}' in '{text}' is not a rule. Write name=value, separated by commas, e.g. topk=50,n_drop=5."
            )
        if name in values:
            raise ValueError(f"'{text}' sets {name} twice. Set it once.")
        values[name] = _number(value)
    return values


def _number(text: str) -> object:
    """The number that text stands for, else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown. Choose one of {', '.join(known)}.")


def _within(name: str, value: float, holds: bool, span: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value} is out of range. Pass a number {span}.")
