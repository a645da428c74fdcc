//! Which traces are recorded: the samplers that OpenTelemetry's environment variables name.

/// The decision for a trace, the same on every thread and on every hop that uses the same ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    parent_based: bool,
    ratio: f64,
}

/// The share of the traces that start here which is recorded by default.
pub const RATIO_DEFAULT: f64 = 0.01;

impl Default for Sampler {
    fn default() -> Self {
        Sampler::parent_based(RATIO_DEFAULT)
    }
}

impl Sampler {
    /// Follows the caller's decision; where there is none, records `ratio` of the traces.
    pub fn parent_based(ratio: f64) -> Self {
        Self {
            parent_based: true,
            ratio: ratio.clamp(0.0, 1.0),
        }
    }

    /// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; the error says what is wrong.
    pub fn parse(name: Option<&str>, argument: Option<&str>) -> Result<Self, String> {
        let name = name.unwrap_or("parentbased_traceidratio");
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => parse_ratio(argument)?,
            _ => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER is `{name}`, which is none of always_on, always_off, \
                     traceidratio, or one of these after parentbased_"
                ));
            }
        };
        Ok(Self {
            parent_based,
            ratio,
        })
    }

    /// `decision` is the caller's, if there was one.
    pub(super) fn sample(self, trace_id: [u8; 16], decision: Option<bool>) -> bool {
        match decision {
            Some(sampled) if self.parent_based => sampled,
            _ => self.of_ratio(trace_id),
        }
    }

    /// As OpenTelemetry's SDK does: the last 8 bytes without their lowest bit, so that all who use
    /// the ratio keep the same traces.
    fn of_ratio(self, trace_id: [u8; 16]) -> bool {
        if self.ratio >= 1.0 {
            return true;
        }
        let low = u64::from_be_bytes(std::array::from_fn(|i| trace_id[8 + i]));
        ((low >> 1) as f64) < self.ratio * (1u64 << 63) as f64
    }
}

fn parse_ratio(argument: Option<&str>) -> Result<f64, String> {
    let Some(text) = argument else {
        return Ok(RATIO_DEFAULT);
    };
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!(
            "OTEL_TRACES_SAMPLER_ARG is `{text}`, which is no number from 0 to 1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers() {
        let check = |name: Option<&str>, argument: Option<&str>, expect: [bool; 4]| {
            let sampler = Sampler::parse(name, argument).unwrap();
            let low = [0; 16];
            let high = [0xff; 16];
            let decisions = [
                sampler.sample(low, None),
                sampler.sample(high, None),
                sampler.sample(high, Some(true)),
                sampler.sample(low, Some(false)),
            ];
            assert_eq!(decisions, expect, "{name:?} {argument:?}");
        };
        check(None, None, [true, false, true, false]);
        check(Some("always_on"), None, [true, true, true, true]);
        check(Some("always_off"), None, [false, false, false, false]);
        check(
            Some("traceidratio"),
            Some("0.5"),
            [true, false, false, true],
        );
        check(
            Some("parentbased_always_on"),
            None,
            [true, true, true, false],
        );
        check(
            Some("parentbased_traceidratio"),
            Some("0"),
            [false, false, true, false],
        );
        assert!(Sampler::parse(Some("jaeger_remote"), None).is_err());
        assert!(Sampler::parse(None, Some("2")).is_err());
    }
}
