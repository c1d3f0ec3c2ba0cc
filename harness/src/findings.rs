//! What was found of the claims and the memory contracts: told at the end of a run, and counted for those who want it to fail.

use std::path::Path;

use crate::claims::Verdict;
use crate::presentation::Presentation;

/// How many of each.
pub struct Findings {
    claims: usize,
    claims_hold: usize,
    claims_broken: usize,
    claims_differ_as_known: usize,
    contracts: usize,
    contracts_broken: usize,
}

impl Findings {
    pub fn of(presentation: &Presentation) -> Findings {
        let claims = presentation.claims();
        let count = |verdict| claims.iter().filter(|c| c.verdict() == verdict).count();
        let lines = || presentation.lines.iter();
        Findings {
            claims: claims.len(),
            claims_hold: count(Verdict::Holds),
            claims_broken: count(Verdict::DoesNotHold),
            claims_differ_as_known: count(Verdict::DiffersAsKnown),
            contracts: lines().filter(|line| line.judged_contracts > 0).count(),
            contracts_broken: lines().filter(|line| line.broken_contracts > 0).count(),
        }
    }

    /// Claims and memory contracts that do not hold, without saying so themselves.
    pub fn broken(&self) -> usize {
        self.claims_broken + self.contracts_broken
    }

    /// In words, and where the details are, where a report was made.
    pub fn text(&self, report: Option<&Path>) -> String {
        let mut lines = Vec::new();
        if self.claims > 0 {
            let decided = self.claims_hold + self.claims_broken + self.claims_differ_as_known;
            let parts = [
                (self.claims_hold, "hold"),
                (self.claims_broken, "do not hold"),
                (
                    self.claims_differ_as_known,
                    "do not hold because Burn differs",
                ),
                (self.claims - decided, "are undecided or were not measured"),
            ];
            let parts = parts.iter().filter(|(count, _)| *count > 0);
            let parts: Vec<_> = parts
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            lines.push(format!("claims:    {}", parts.join(", ")));
        }
        if self.contracts > 0 {
            let kept = self.contracts - self.contracts_broken;
            lines.push(match self.contracts_broken {
                0 => format!("contracts: {kept} hold"),
                broken => format!("contracts: {kept} hold, {broken} do not hold"),
            });
        }
        lines.extend(report.map(|report| format!("report:    {}", report.display())));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_what_does_not_and_what_is_open_is_told_with_the_report() {
        let findings = Findings {
            claims: 7,
            claims_hold: 3,
            claims_broken: 1,
            claims_differ_as_known: 1,
            contracts: 5,
            contracts_broken: 2,
        };
        let text = findings.text(Some(Path::new("out/report.md")));
        let expected = "claims:    3 hold, 1 do not hold, 1 do not hold because Burn differs, 2 are undecided or were not \
                        measured\ncontracts: 3 hold, 2 do not hold\nreport:    out/report.md";
        assert_eq!(text, expected);
        assert_eq!(findings.broken(), 3);
    }
}
