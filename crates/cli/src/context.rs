//! What a command runs with: options, configuration, this computer, the repository.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use vrs_borg::{BorgLocation, BorgOptions, BorgRepository};
use vrs_engine::journal::{Intent, Unfinished};
use vrs_engine::machine::Machine;
use vrs_engine::originals::Originals;
use vrs_engine::{Host, recover, tracking};
use vrs_repository::{
    Access, InitOptions, Location, OpenOptions, Password, ResticRepository, SnapshotStore,
};
use vrs_virtualbox::{LocateOptions, VBoxManage};

use crate::access::{self, Whose};
use crate::args::{GlobalArgs, NewPasswordArgs, OtherArgs};
use crate::config::{Config, ConfigError, Folders, RepositoryConfig};
use crate::errors::{Error, Result};
use crate::keyring;
use crate::password::{self, Given, PasswordOptions, Source};
use crate::printer::{self, Printer, Report};
use crate::reporters::{Bars, Events, Lines, Reporter, View};
use crate::signals::Interrupt;
use crate::text;

/// Everything around a command.
pub struct Context {
    pub printer: Printer,
    options: GlobalArgs,
    config: Config,
    folders: Folders,
    interrupt: Interrupt,
}

/// Which repository is meant, and how its password is found.
struct Choice {
    location: Place,
    password: Source,
    whose: Whose,
}

/// A location of one kind of repository or the other.
enum Place {
    Restic(Location),
    Borg(BorgLocation),
}

impl Place {
    /// One that means the same from every folder, because journals remember it.
    fn parse(text: &str) -> Result<Self> {
        if let Some(location) = BorgLocation::parse(text) {
            let location = location.map_err(vrs_engine::Error::from)?;
            return Ok(Self::Borg(location.absolute()));
        }
        absolute(text).map(Self::Restic)
    }

    /// For what borg has no counterpart of.
    fn require_restic(&self) -> Result<&Location> {
        match self {
            Self::Restic(location) => Ok(location),
            Self::Borg(location) => Err(Error::usage(format!(
                "vrs does that in repositories of restic's format only, and {location} is one of borg; \
                 `borg key --help` tells about its keys"
            ))),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Restic(location) => location.fmt(formatter),
            Self::Borg(location) => location.fmt(formatter),
        }
    }
}

impl Context {
    pub fn new(options: GlobalArgs, printer: Printer) -> Result<Self> {
        let folders = Folders::find();
        let config = Config::load(options.config.as_deref(), folders.config_file().as_deref())?;
        Ok(Self {
            printer,
            options,
            config,
            folders,
            interrupt: Interrupt::listen()?,
        })
    }

    /// This computer.
    pub fn host(&self) -> Result<Host> {
        let program = self
            .options
            .vboxmanage
            .clone()
            .or_else(|| self.config.vboxmanage.clone().map(|path| path.0));
        let patience = self.config.vboxmanage_patience_seconds;
        let options = LocateOptions {
            program,
            patience: patience.map_or(LocateOptions::default().patience, |seconds| {
                Duration::from_secs(seconds.get().into())
            }),
            search_path: std::env::var_os("PATH"),
            secret_variables: secret_variables().map(Into::into).collect(),
        };
        Ok(Host {
            virtualbox: VBoxManage::locate(&options).map_err(|error| error.to_string()),
            state_folder: self.folders.state()?,
            name: gethostname::gethostname().to_string_lossy().into_owned(),
        })
    }

    /// This computer, for a command that works with machines: says what is owed to them.
    pub fn host_in_order(&self) -> Result<Host> {
        let host = self.host()?;
        self.tell_owed(&recover::owed(&host)?);
        self.sweep(&host);
        Ok(host)
    }

    /// Whether the config file wants a machine to be tracked.
    pub fn tracks(&self, machine: &Machine) -> bool {
        self.config.tracks(&machine.id.to_string(), &machine.name)
    }

    /// Removes what tracking left of machines and takes that are gone.
    pub fn sweep(&self, host: &Host) {
        if let Err(error) = tracking::sweep(host) {
            self.printer
                .note(&format!("what tracking left could not be removed: {error}"));
        }
    }

    /// Says what was interrupted, and how to go on.
    pub fn tell_owed(&self, owed: &[Unfinished]) {
        for unfinished in owed {
            let title = text::name(&unfinished.intent.title());
            let or_undo = if is_clone(&unfinished.intent) {
                ", or `vrs recover --undo` to give it up"
            } else {
                ""
            };
            self.printer.note(&format!(
                "{title} was interrupted; run `vrs recover`{or_undo}"
            ));
        }
    }

    /// Whether the user said which repository is meant.
    pub fn has_repository(&self) -> bool {
        self.wanted_repository().is_some()
    }

    fn wanted_repository(&self) -> Option<&str> {
        let given = self
            .options
            .repo
            .as_deref()
            .filter(|given| !given.is_empty());
        given.or(self.config.default_repository.as_deref())
    }

    /// Opens the repository.
    pub fn repository(&self) -> Result<Box<dyn SnapshotStore>> {
        self.open(self.require_wanted()?)
    }

    /// Opens the repository for what only restic's format knows.
    pub fn restic_repository(&self) -> Result<ResticRepository> {
        Ok(self.open_restic(self.choose(self.require_wanted()?)?)?.0)
    }

    fn require_wanted(&self) -> Result<&str> {
        self.wanted_repository().ok_or_else(|| {
            Error::usage("no repository is given; use --repo or VRS_REPOSITORY, or set default_repository in the config file")
        })
    }

    /// The folder of the repository, which must be one of this computer.
    pub fn repository_folder(&self) -> Result<PathBuf> {
        let location = self.choose(self.require_wanted()?)?.location;
        let folder = match &location {
            Place::Restic(location) => location.folder(),
            Place::Borg(_) => None,
        };
        folder.map(Path::to_owned).ok_or_else(|| {
            Error::usage(format!(
                "{location} is no folder of this computer; run this where the repository lies, with its folder as --repo"
            ))
        })
    }

    /// The file with the repository's password, for who can ask nobody.
    pub fn password_file(&self) -> Result<PathBuf> {
        match self.choose(self.require_wanted()?)?.password {
            Source::File(file) => Ok(absolute_path(&file)),
            _ => Err(Error::usage(
                "a service can ask nobody for the password; put it into a file that only its owner can read, and name that with --password-file",
            )),
        }
    }

    /// Where units of the user's systemd are.
    pub fn user_units(&self) -> Result<PathBuf> {
        let own = self.folders.config.as_deref();
        let configurations = own.and_then(Path::parent).ok_or(ConfigError::NoHome)?;
        Ok(configurations.join("systemd/user"))
    }

    /// Opens the repository that the user named, else the one at `location`.
    pub fn repository_or(&self, location: &str) -> Result<Box<dyn SnapshotStore>> {
        self.open(self.wanted_repository().unwrap_or(location))
    }

    /// Opens the repository, and keeps the password that opened it.
    pub fn repository_and_password(&self) -> Result<(ResticRepository, Password)> {
        let wanted = self.require_wanted()?;
        let (repository, secret) = self.open_restic(self.choose(wanted)?)?;
        Ok((repository, reveal(&secret)))
    }

    /// Opens another repository than the one that the command is about.
    pub fn other_repository(&self, wanted: &str, given: &OtherArgs) -> Result<ResticRepository> {
        let profile = given.other_aws_profile.clone();
        let given = Given {
            file: given.other_password_file.clone(),
            command: given.other_password_command.clone(),
        };
        let named = self.config.repositories.get(wanted);
        let own = given.source().or_else(|| named.map(config_given)?.source());
        let mut choice = self.choose(wanted)?;
        choice.password = own.unwrap_or(choice.password);
        choice.whose.is_second = true;
        if let Some(profile) = profile {
            choice.whose.aws_profile = Some(profile);
        }
        Ok(self.open_restic(choice)?.0)
    }

    /// A password that is to open a repository from now on.
    pub fn new_password(&self, location: &str, given: &NewPasswordArgs) -> Result<Password> {
        let given = Given {
            file: given.new_password_file.clone(),
            command: given.new_password_command.clone(),
        };
        let source = given.source().unwrap_or(Source::Prompt);
        Ok(reveal(&source.read_new(location, &self.interrupt)?))
    }

    fn open(&self, wanted: &str) -> Result<Box<dyn SnapshotStore>> {
        let choice = self.choose(wanted)?;
        let Place::Borg(location) = &choice.location else {
            return Ok(Box::new(self.open_restic(choice)?.0));
        };
        let location = location.clone();
        let (secret, source) = choice
            .password
            .read(&location.to_string(), &self.interrupt)?;
        let opened = BorgRepository::open(&location, &reveal(&secret), &self.borg_options()?);
        let repository = opened.map_err(|error| opening_failed(error, &source))?;
        self.save_if_asked(&location.to_string(), &secret);
        Ok(Box::new(Originals::among(Box::new(repository))))
    }

    fn open_restic(&self, choice: Choice) -> Result<(ResticRepository, SecretString)> {
        let location = choice.location.require_restic()?;
        let mut options = OpenOptions::default();
        options.access = self.access(Some(location), &choice.whose)?;
        options.cache_folder = self
            .folders
            .cache
            .clone()
            .filter(|_| !self.options.no_cache);
        let (secret, source) = choice
            .password
            .read(&location.to_string(), &self.interrupt)?;
        let opened = ResticRepository::open(location, &reveal(&secret), &options);
        let repository = opened.map_err(|error| opening_failed(error, &source))?;
        self.save_if_asked(&location.to_string(), &secret);
        Ok((repository, secret))
    }

    /// Creates the repository, and says where.
    pub fn init_repository(&self) -> Result<String> {
        let wanted = self
            .wanted_repository()
            .ok_or_else(|| Error::usage("say with --repo where the repository is to be created"))?;
        let choice = self.choose(wanted)?;
        let location = choice.location.to_string();
        let secret = self.init(choice)?;
        self.save_if_asked(&location, &secret);
        Ok(location)
    }

    /// The password is asked for once everything else is known.
    fn init(&self, choice: Choice) -> Result<SecretString> {
        let name = choice.location.to_string();
        let ask = || choice.password.read_new(&name, &self.interrupt);
        let secret;
        let made = match &choice.location {
            Place::Borg(location) => {
                let options = self.borg_options()?;
                secret = ask()?;
                BorgRepository::init(location, &reveal(&secret), &options)
            }
            Place::Restic(location) => {
                let mut options = InitOptions::default();
                options.hostname = gethostname::gethostname().into_string().ok();
                options.access = self.access(Some(location), &choice.whose)?;
                secret = ask()?;
                ResticRepository::init(location, &reveal(&secret), &options)
            }
        };
        made.map_err(vrs_engine::Error::from)?;
        Ok(secret)
    }

    fn borg_options(&self) -> Result<BorgOptions> {
        Ok(BorgOptions {
            access: self.access(None, &Whose::default())?,
            secret_variables: secret_variables().map(str::to_owned).collect(),
            base_folder: None,
        })
    }

    fn access(&self, location: Option<&Location>, whose: &Whose) -> Result<Access> {
        access::find(
            location,
            whose,
            &self.options,
            &self.config,
            self.folders.home.as_deref(),
            &self.interrupt,
        )
    }

    fn choose(&self, wanted: &str) -> Result<Choice> {
        let named = self.config.repositories.get(wanted);
        let location = named.map_or(wanted, |named| named.location.0.as_str());
        Ok(Choice {
            location: Place::parse(location)?,
            password: self.password_source(named),
            whose: Whose {
                aws_profile: named.and_then(|named| named.aws_profile.clone()),
                is_second: false,
            },
        })
    }

    fn password_source(&self, named: Option<&RepositoryConfig>) -> Source {
        let flags = Given {
            file: self.options.password_file.clone(),
            command: self.options.password_command.clone(),
        };
        let config = named.map_or_else(Given::default, config_given);
        let environment = Given::from_environment();
        PasswordOptions {
            flags,
            environment,
            variable: password::from_variable(),
            config,
        }
        .source()
    }

    fn save_if_asked(&self, location: &str, secret: &SecretString) {
        if self.options.save_password
            && let Err(reason) = keyring::save(location, secret)
        {
            self.printer.warn(&format!(
                "the password was not saved in the keyring: {reason}"
            ));
        }
    }

    /// A receiver of progress, shown as it fits.
    pub fn reporter(&self) -> Reporter {
        let printer = self.printer.clone();
        let view: Box<dyn View> = if self.options.no_progress || self.options.quiet {
            Box::new(Lines::silent(printer))
        } else if self.options.json {
            Box::new(Events::new(printer))
        } else if stderr().is_terminal() {
            Box::new(Bars::new(printer))
        } else {
            Box::new(Lines::new(printer))
        };
        Reporter::new(view, self.interrupt.clone())
    }

    pub const fn is_verbose(&self) -> bool {
        self.options.verbose > 0
    }

    /// Stops if a question could not be answered, before anything is done to prepare it.
    pub fn require_consent(&self, yes: bool) -> Result<()> {
        if yes || (!self.options.json && printer::can_ask()) {
            return Ok(());
        }
        Err(Error::usage(
            "there is nobody to ask whether this is right; look at it with --dry-run, then say --yes",
        ))
    }

    /// Shows what will be done and stops unless the user agrees. `--yes` agrees without a look.
    pub fn confirm(&self, plan: &impl Report, question: &str, yes: bool) -> Result<()> {
        self.require_consent(yes)?;
        if yes {
            return Ok(());
        }
        self.printer.preview(plan)?;
        let agreed = self.interrupt.while_asking(|| self.printer.ask(question))?;
        if agreed { Ok(()) } else { Err(Error::Declined) }
    }
}

/// What the config file says about the password of a repository.
fn config_given(named: &RepositoryConfig) -> Given {
    Given {
        file: named.password_file.clone().map(|path| path.0),
        command: named.password_command.clone(),
    }
}

/// The variables that hold secrets.
pub fn secret_variables() -> impl Iterator<Item = &'static str> {
    password::VARIABLES.into_iter().chain(access::VARIABLES)
}

fn is_clone(intent: &Intent) -> bool {
    matches!(intent, Intent::Restore(intent) if intent.is_clone)
}

fn reveal(secret: &SecretString) -> Password {
    Password::new(secret.expose_secret().to_owned())
}

fn opening_failed(error: vrs_repository::Error, source: &Source) -> Error {
    let is_password = error.kind() == vrs_repository::ErrorKind::WrongPassword;
    let error = vrs_engine::Error::from(error);
    if is_password {
        Error::WrongPassword {
            error,
            password_source: source.describe(),
        }
    } else {
        error.into()
    }
}

/// A location that means the same from every folder, because journals remember it.
fn absolute(location: &str) -> Result<Location> {
    let parsed = Location::parse(location).map_err(vrs_engine::Error::from)?;
    let Some(folder) = parsed.folder().map(absolute_path) else {
        return Ok(parsed);
    };
    Ok(Location::parse(&format!("local:{}", folder.display())).map_err(vrs_engine::Error::from)?)
}

/// A path as it is meant from every folder.
pub fn absolute_path(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
