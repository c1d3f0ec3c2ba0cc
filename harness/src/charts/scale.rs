//! From values to pixels, with round ticks.

/// A linear scale from 0 to `max` onto pixels.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub max: f64,
    pub from: i32,
    pub to: i32,
    /// About this many ticks.
    pub ticks: usize,
}

impl Scale {
    pub fn pixel(&self, value: f64) -> i32 {
        let share = value / self.max;
        self.from + (share * f64::from(self.to - self.from)).round() as i32
    }

    /// Round numbers from 0 to `max`.
    pub fn ticks(&self) -> Vec<f64> {
        let step = nice_step(self.max / self.ticks as f64);
        let count = (self.max / step + 1e-9).floor() as usize;
        (0..=count).map(|tick| tick as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= least * 0.999);
    step.unwrap_or(10.0) * power
}

/// A number without needless zeros: `0.5`, `2`, `10`.
pub fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_scale() {
        let scale = Scale {
            max: 2.3,
            from: 0,
            to: 100,
            ticks: 5,
        };
        assert_eq!(scale.ticks(), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!((scale.pixel(0.0), scale.pixel(2.3)), (0, 100));
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(10.0), "10");
    }
}
