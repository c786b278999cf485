//! Credentials for storage elsewhere, from where other programs look for them, too.
//!
//! Variables come before files: `AWS_ACCESS_KEY_ID` and its relatives before the shared profile,
//! `RESTIC_REST_USERNAME` and `RESTIC_REST_PASSWORD` before `.netrc`. `ssh` and `rclone` find their own.
//! Where a command has two repositories, the variables are those of the first: the second one's login is
//! looked for in `.netrc` before, and a profile that is named for it comes before all variables.
//! A file that cannot be understood holds no credentials; the server then says that some are missing.

use std::path::{Path, PathBuf};

use ini::Ini;
use netrc::Netrc;
use vrs_repository::{Access, Interrupted, Location, Password, S3Key};

use crate::args::GlobalArgs;
use crate::config::Config;
use crate::errors::{Error, Result};
use crate::signals::Interrupt;

/// The variables that hold secrets; no child process but `ssh` and `rclone` needs them.
pub const VARIABLES: [&str; 4] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RESTIC_REST_PASSWORD",
    "RCLONE_CONFIG_PASS",
];

/// Whose credentials are wanted.
#[derive(Debug, Clone, Default)]
pub struct Whose {
    /// The profile of the AWS files that the user named for this repository.
    pub aws_profile: Option<String>,
    /// Whether it is the second repository of a command.
    pub is_second: bool,
}

/// Where credentials may be.
struct Places<'a> {
    home: Option<&'a Path>,
    variable: &'a dyn Fn(&str) -> Option<String>,
    whose: &'a Whose,
}

/// All that is known for reaching `location`, or a borg repository.
pub fn find(
    location: Option<&Location>,
    whose: &Whose,
    options: &GlobalArgs,
    config: &Config,
    home: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<Access> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let places = Places {
        home,
        variable: &variable,
        whose,
    };
    let mut access = Access::default();
    if let Some(ssh) = variable("VRS_SSH_COMMAND").or_else(|| config.ssh_command.clone()) {
        access.ssh = words(&ssh, "VRS_SSH_COMMAND or ssh_command")?;
    }
    if let Some(rclone) = variable("VRS_RCLONE_COMMAND").or_else(|| config.rclone_command.clone()) {
        access.rclone = words(&rclone, "VRS_RCLONE_COMMAND or rclone_command")?;
    }
    access.s3_key = places.s3_key();
    access.s3_region = places.s3_region();
    access.rest_login = places.rest_login(location.and_then(Location::login_host));
    access.certificates = options.cacert.clone();
    access.upload_kib_per_second = options.limit_upload;
    access.download_kib_per_second = options.limit_download;
    let interrupt = interrupt.clone();
    access.interrupted = Interrupted::new(move || interrupt.is_set());
    Ok(access)
}

fn words(command: &str, source: &str) -> Result<Vec<String>> {
    match shell_words::split(command) {
        Ok(words) if !words.is_empty() => Ok(words),
        _ => Err(Error::usage(format!("{source} is no command: '{command}'"))),
    }
}

impl Places<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    fn file(&self, variable: &str, usual: &str) -> Option<PathBuf> {
        let given = self.get(variable).map(PathBuf::from);
        given.or_else(|| Some(self.home?.join(usual)))
    }

    fn profile(&self) -> String {
        let named = self.whose.aws_profile.clone();
        named
            .or_else(|| self.get("AWS_PROFILE"))
            .unwrap_or_else(|| "default".to_owned())
    }

    /// What a profile says before what variables say if the user named one, else after it.
    fn by_profile<T>(
        &self,
        profile: impl FnOnce() -> Option<T>,
        variables: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if self.whose.aws_profile.is_some() {
            return profile();
        }
        variables().or_else(profile)
    }

    fn s3_key(&self) -> Option<S3Key> {
        let from_variables = || {
            Some(S3Key {
                id: self.get("AWS_ACCESS_KEY_ID")?,
                secret: Password::new(self.get("AWS_SECRET_ACCESS_KEY")?),
                session_token: self.get("AWS_SESSION_TOKEN").map(Password::new),
            })
        };
        let from_profile = || {
            let file = self.file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?;
            let profiles = Ini::load_from_file_noescape(file).ok()?;
            let profile = profiles.section(Some(self.profile()))?;
            Some(S3Key {
                id: profile.get("aws_access_key_id")?.to_owned(),
                secret: Password::new(profile.get("aws_secret_access_key")?.to_owned()),
                session_token: profile
                    .get("aws_session_token")
                    .map(|token| Password::new(token.to_owned())),
            })
        };
        self.by_profile(from_profile, from_variables)
    }

    fn s3_region(&self) -> Option<String> {
        let from_config = || {
            let file = self.file("AWS_CONFIG_FILE", ".aws/config")?;
            let config = Ini::load_from_file_noescape(file).ok()?;
            let section = match self.profile().as_str() {
                "default" => "default".to_owned(),
                profile => format!("profile {profile}"),
            };
            Some(config.section(Some(section))?.get("region")?.to_owned())
        };
        let from_variables = || {
            self.get("AWS_REGION")
                .or_else(|| self.get("AWS_DEFAULT_REGION"))
        };
        self.by_profile(from_config, from_variables)
    }

    fn rest_login(&self, host: Option<&str>) -> Option<(String, Password)> {
        let host = host?;
        let from_variables = || {
            let (user, password) = (
                self.get("RESTIC_REST_USERNAME")?,
                self.get("RESTIC_REST_PASSWORD")?,
            );
            Some((user, Password::new(password)))
        };
        let from_netrc = || {
            let file = Netrc::from_file(&self.file("NETRC", ".netrc")?).ok()?;
            let default = || file.hosts.get("default").filter(|_| !self.whose.is_second);
            let entry = file.hosts.get(host).or_else(default)?;
            Some((entry.login.clone(), Password::new(entry.password.clone())))
        };
        if self.whose.is_second {
            return from_netrc().or_else(from_variables);
        }
        from_variables().or_else(from_netrc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(variables: &[(&str, &str)], look: impl FnOnce(&Places<'_>) -> T) -> T {
        with_whose(&Whose::default(), variables, look)
    }

    fn with_whose<T>(
        whose: &Whose,
        variables: &[(&str, &str)],
        look: impl FnOnce(&Places<'_>) -> T,
    ) -> T {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "[default]\naws_access_key_id = D\naws_secret_access_key = a\\b#c=\n\
            [work]\naws_access_key_id=W\naws_secret_access_key=x\naws_session_token=t\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let config = "[default]\nregion = eu-north-1\n[profile work]\nregion = us-west-2\n";
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let netrc = "machine nas login me password secret\n";
        std::fs::write(home.path().join(".netrc"), netrc).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(present, _)| *present == name)?;
            Some(found.1.to_owned())
        };
        look(&Places {
            home: Some(home.path()),
            variable: &variable,
            whose,
        })
    }

    #[test]
    fn a_second_repository_has_credentials_of_its_own() {
        let second = Whose {
            aws_profile: Some("work".to_owned()),
            is_second: true,
        };
        let variables = [
            ("AWS_ACCESS_KEY_ID", "V"),
            ("AWS_SECRET_ACCESS_KEY", "v"),
            ("AWS_REGION", "here"),
            ("RESTIC_REST_USERNAME", "you"),
            ("RESTIC_REST_PASSWORD", "p"),
        ];
        with_whose(&second, &variables, |places| {
            assert_eq!(places.s3_key().unwrap().id, "W");
            assert_eq!(places.s3_region().as_deref(), Some("us-west-2"));
            assert_eq!(places.rest_login(Some("nas")).unwrap().0, "me");
            assert_eq!(places.rest_login(Some("other")).unwrap().0, "you");
        });
        // A profile that is not there is not replaced by somebody else's key.
        let absent = Whose {
            aws_profile: Some("none".to_owned()),
            is_second: true,
        };
        with_whose(&absent, &variables, |places| {
            assert!(places.s3_key().is_none());
        });
    }

    fn key(variables: &[(&str, &str)]) -> (String, bool) {
        let key = with(variables, |places| places.s3_key()).unwrap();
        (key.id, key.session_token.is_some())
    }

    #[test]
    fn keys_come_from_variables_before_the_profile() {
        assert_eq!(key(&[]), ("D".to_owned(), false));
        assert_eq!(key(&[("AWS_PROFILE", "work")]), ("W".to_owned(), true));
        let variables = [("AWS_ACCESS_KEY_ID", "V"), ("AWS_SECRET_ACCESS_KEY", "v")];
        assert_eq!(key(&variables), ("V".to_owned(), false));
        assert!(with(&[("AWS_PROFILE", "none")], |places| places.s3_key()).is_none());
    }

    #[test]
    fn regions_belong_to_profiles() {
        assert_eq!(
            with(&[], |places| places.s3_region()).as_deref(),
            Some("eu-north-1")
        );
        let work = [("AWS_PROFILE", "work")];
        assert_eq!(
            with(&work, |places| places.s3_region()).as_deref(),
            Some("us-west-2")
        );
        let given = [("AWS_DEFAULT_REGION", "here")];
        assert_eq!(
            with(&given, |places| places.s3_region()).as_deref(),
            Some("here")
        );
    }

    #[test]
    fn logins_of_rest_servers_come_from_variables_or_netrc() {
        let user = |variables: &[(&str, &str)], host| {
            with(variables, |places| places.rest_login(host)).map(|(user, _)| user)
        };
        assert_eq!(user(&[], Some("nas")).as_deref(), Some("me"));
        assert_eq!(user(&[], Some("other")), None);
        let given = [
            ("RESTIC_REST_USERNAME", "you"),
            ("RESTIC_REST_PASSWORD", "p"),
        ];
        assert_eq!(user(&given, Some("nas")).as_deref(), Some("you"));
        assert_eq!(user(&given, None), None);
    }
}
