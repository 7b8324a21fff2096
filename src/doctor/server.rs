//! The kinds of web servers, and a remedy in the language of each.

/// The web server that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Apache,
    Lighttpd,
    /// Another one, such as a proxy before it.
    Other,
}

impl Server {
    /// By the header `Server`.
    pub fn of(header: &str) -> Self {
        match () {
            () if header.contains("Apache") => Self::Apache,
            () if header.contains("lighttpd") => Self::Lighttpd,
            () => Self::Other,
        }
    }

    /// The remedy for this server, or both.
    pub fn choose(self, apache: &str, lighttpd: &str) -> String {
        match self {
            Self::Apache => apache.into(),
            Self::Lighttpd => lighttpd.into(),
            Self::Other if apache == lighttpd => apache.into(),
            Self::Other => format!("{apache} (Apache), or {lighttpd} (lighttpd)"),
        }
    }

    /// The line that sets a variable for the program.
    pub fn setting(self, name: &str, value: &str) -> String {
        self.choose(
            &format!("SetEnv {name} \"{value}\""),
            &format!("setenv.add-environment += ( \"{name}\" => \"{value}\" )"),
        )
    }

    /// The command that shows what the program has told last.
    pub fn log(self) -> String {
        let command = |name| format!("grep novcomet: /var/log/{name}/error.log | tail -n 1");
        self.choose(&command("apache2"), &command("lighttpd"))
    }
}
