//! How the demo looks: coloured on a terminal, plain anywhere else.

use std::io::{self, IsTerminal};

use crate::cli::{Outcome, output};

/// Prints the story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    coloured: bool,
}

impl Screen {
    /// Colours only on a terminal whose user did not ask for none (no-color.org).
    pub fn new() -> Self {
        Self {
            coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Begins a chapter.
    pub fn chapter(self, title: &str) -> Outcome {
        output::print(&format!(
            "\n{}\n",
            self.paint("1;36", &format!("▌ {title}"))
        ))
    }

    /// A command as the user would type it, and what it printed.
    pub fn command(self, command: &str, printed: &str) -> Outcome {
        let mut out = format!("  {}\n", self.paint("1", &format!("$ {command}")));
        for line in printed.lines() {
            out.push_str(&format!("    {line}\n"));
        }
        output::print(&out)
    }

    /// Something that was seen.
    pub fn say(self, text: &str) -> Outcome {
        let line = |line: &str| format!("  {}\n", line.trim_end());
        let lines: String = text.lines().map(line).collect();
        output::print(&lines)
    }

    /// Something that was checked and is as it should be.
    pub fn good(self, text: &str) -> Outcome {
        output::print(&format!("  {} {text}\n", self.paint("1;32", "✔")))
    }

    /// A bar of up to `width` characters.
    pub fn bar(self, share: f64, width: u32) -> String {
        let filled = (share * f64::from(width)).round();
        let blocks = (1..=width).take_while(|block| f64::from(*block) <= filled);
        self.paint("36", &"█".repeat(blocks.count()))
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
