//! The command line: every command, option and help text. Scripts rely on these words.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use pando_core::{
    access::MAX_KEY_NAME,
    layout::{MAX_ZONE, Replicas},
    name::RegisterName,
    ticket::Ticket,
};
use pando_gateway::LONGEST_LINK;

use crate::{control::message::Range, exit, units};

const JSON_UP: &str = "\
Given again, --zone, --capacity, --listen and --advertise change what the network knows of a member;
what it holds moves accordingly.

With --json, one line when the node is ready:
  {id, network, started, listen, advertised, data, control, ticket,
   s3: {endpoint, access_key, secret_key, bucket}, http}
`ticket` is null if no invite could be made just now; the keys and the bucket are null but for the node that made
the network, which shows them this once (`pando key create` makes more). A node that was drained prints {id, ended} when it has
left (`ended` is \"left\"), and exits with 0.";
const JSON_PUT: &str = "With --json: {bucket, key, size, blake3, etag, copies, wanted}";
const JSON_GET: &str = "\
With --json (and -o FILE), one line at the end:
  {bucket, key, size, blake3, etag, modified, content_type, meta, start, end, output}
and stale: true with --stale.";
const JSON_LS: &str = "\
With --json, one line each: {bucket, key, size, blake3, etag, modified}, or {bucket, prefix} for what
shares a prefix, or {bucket, created} for buckets; and stale: true with --stale.";
const JSON_STAT: &str = "\
With --json: {bucket, key, size, blake3, etag, modified, content_type, meta}, and stale: true with --stale;
blake3 is null for an object that was uploaded in parts";
const JSON_SHARE: &str = "\
The link leads to the S3 of this node, which must be on. It is signed with an access key of its own, named
\"share links of BUCKET\", which may read that bucket only and is made when it is first needed: `pando key rm` of
that key ends all links to the bucket within seconds. For an object that is public anyway, its plain address is
printed, which does not expire.

With --json: {bucket, key, url, public, expires}; `expires` is null if it is public";
const JSON_RM: &str = "With --json, one line each: {bucket, key, removed}";
const JSON_BUCKET: &str = "\
With --json: {bucket} for `create`; {bucket, created}, a line each, for `ls`; {bucket, removed} for `rm`";
const JSON_KEY: &str = "\
With --json: {key, name, created, grants, secret} for `create`; {key, name, created, grants}, a line each, for
`ls`; {key, removed} for `rm`. `grants` is \"all\", or a list of {bucket, right} with right \"read\", \"write\" or
\"owner\".";
const JSON_INVITE: &str = "With --json: {ticket}";
const JSON_STATUS: &str = "\
With --json: {network, layout, in_transition, replicas, health, summary, objects: {at_least, exact},
  nodes: [{id, zone, addresses, state, up, down_for, me, used, capacity, owed}],
  healing: {lacking, owing, misplaced, rate, done_in}, scrub: {now, verified, total, damaged, finished}}
`health` is \"healthy\", \"degraded\" or \"unavailable\"; `replicas` is a number or \"all\"; `state` is \"active\"
or \"draining\"; `down_for` and `done_in` are seconds, `rate` is bytes a second; `healing` and `scrub` are of
the node that was asked: chunks to fetch, to hand over to others, and to drop once others have them, and
chunks verified. What is not known is null.";
const JSON_DRAIN: &str = "\
The node gives up what it holds to the others and then leaves the network by itself. Without --no-wait, the
command follows until it has left; interrupting that stops the following, not the draining.

With --json, one line at the end: {id, state}; `state` is \"left\", \"draining\" (--no-wait) or \"active\" (--undo).";
const JSON_REMOVE: &str = "\
For a node that does not come back: what it held is copied from the others. A node that still runs is better
drained. While others are down too, so that some data might be lost, it is not removed, not even by --force,
but only by --accept-loss: start the others first if you can.

With --json: {id, removed}";
const JSON_PLAN: &str = "\
Changes nothing. Without options, it shows how everything is spread now. A share is of all copies of all
partitions.

With --json: {copies, moved, slots, bytes,
  members: [{id, zone, capacity, slots_before, slots_after, bytes_in}]}
`slots` are copies of partitions, `moved` those that would move, `bytes` about how much that is; `id` is null
for a node that would join.";
const JSON_CHECK: &str = "\
Asks every owner of every object and chunk what it holds. Changes nothing. Exits with 0 only if all is in
place, with 9 if not.

With --json: {objects, chunks, bytes, clean, problem_count, problems: [{object, chunk, node, what}],
  unreachable, in_transition}
`problems` has the first of them, `chunk` is null for an object's record, `unreachable` are ids of nodes.";
const JSON_SCRUB: &str = "\
Every node reads and verifies all of its chunks again and again, slowly. A damaged chunk is put aside and
fetched again from another node, by itself. This shows how far the local node is; --now makes it start anew,
as fast as it may, and waits for the end. Exits with 9 if that pass found damaged chunks, else with 0.

With --json: {now, verified, total, damaged, finished}; `finished` is when the last whole pass ended, or null";
const JSON_DEMO: &str = "With --json, one line each step: {step, seconds, bytes}, and {ok: true} at the end";

/// A decentralized peer-to-peer storage system: put a file on any node, read it from any other.
#[derive(Debug, Parser)]
#[command(name = "pando", version, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// The node's data folder [default: the platform's folder for application data]
    #[arg(long, global = true, env = "PANDO_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON, one value a line, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log what happens to stderr; twice for more (PANDO_LOG takes a filter instead)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: make a network, join one, or resume; in the foreground, until SIGINT or SIGTERM
    #[command(after_help = JSON_UP)]
    Up(Box<Up>),
    /// Make a ticket that lets one more node join, once
    #[command(after_help = JSON_INVITE)]
    Invite(Invite),
    /// Create, list and remove buckets
    #[command(subcommand, after_help = JSON_BUCKET)]
    Bucket(Bucket),
    /// Create, list and remove access keys
    #[command(subcommand, after_help = JSON_KEY)]
    Key(Key),
    /// Store a file, or stdin, as an object
    #[command(after_help = JSON_PUT)]
    Put(Put),
    /// Read an object, or a range of it, into a file or to stdout
    #[command(after_help = JSON_GET)]
    Get(Get),
    /// List buckets, or the objects of one
    #[command(after_help = JSON_LS)]
    Ls(Ls),
    /// Show what is known of an object
    #[command(after_help = JSON_STAT)]
    Stat(Stat),
    /// Print a link by which anyone may read an object for a while
    #[command(after_help = JSON_SHARE)]
    Share(Share),
    /// Remove objects
    #[command(after_help = JSON_RM)]
    Rm(Rm),
    /// Show the nodes, how many objects there are, what is being mended, and whether all is well
    #[command(after_help = JSON_STATUS)]
    Status,
    /// Empty a node and let it leave the network
    #[command(after_help = JSON_DRAIN)]
    Drain(Drain),
    /// Remove a node that is gone for good
    #[command(after_help = JSON_REMOVE)]
    Remove(Remove),
    /// Show what nodes that leave or join would move, before they do
    #[command(after_help = JSON_PLAN)]
    Plan(Plan),
    /// Look whether every copy of every object is where it should be
    #[command(after_help = JSON_CHECK)]
    Check(Check),
    /// Show how far the verification of the local node's chunks is, or do it now
    #[command(after_help = JSON_SCRUB)]
    Scrub(Scrub),
    /// Watch it work: three nodes on this machine, a file stored, a node killed, the file read and verified
    #[command(after_help = JSON_DEMO)]
    Demo(Demo),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Join the network of this ticket (from `pando invite` on one of its nodes)
    #[arg(long, value_name = "TICKET")]
    pub(crate) join: Option<Ticket>,
    /// Where to listen, as IP:PORT [default: where it listened before, else port 7433, else any]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where other nodes reach this one, if that is not where it listens [default: what it was]
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,
    /// Where it stands (a room, a site): copies go to different zones where there are enough [default: what
    /// it was, else "default"]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    pub(crate) zone: Option<String>,
    /// How much it may store, like 500G or 1.5T [default: what it was, else the free space of its disk]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub(crate) capacity: Option<u64>,
    /// Copies of everything, a number or `all`; only when the network is made [default: 3]
    #[arg(long, value_name = "N|all", value_parser = parse_replicas, conflicts_with = "join")]
    pub(crate) replicas: Option<Replicas>,
    /// How long data that no object needs any more is kept, 5m at least [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_grace)]
    pub(crate) grace: Option<Duration>,
    /// Replace another node by itself once it was unreachable for so long, or `never`; longer than a restart
    /// or an update takes
    #[arg(long, value_name = "DURATION|never", value_parser = parse_dead_after, default_value = "1h")]
    pub(crate) dead_after: DeadAfter,
    /// Most bytes a second that healing and scrubbing may move on this node, like 50M
    #[arg(long, value_name = "SIZE|unlimited", value_parser = parse_heal_rate, default_value = "unlimited")]
    pub(crate) heal_rate: HealRate,
    #[command(flatten)]
    pub(crate) faces: Faces,
}

/// What `up` serves over HTTP.
#[derive(Debug, Args)]
pub(crate) struct Faces {
    /// Where to serve S3, or `none` [default: 127.0.0.1:9000, or another port if that is taken]
    #[arg(long, value_name = "ADDR|none", value_parser = parse_s3)]
    pub(crate) s3: Option<S3At>,
    /// Where to serve /health and /metrics [default: beside S3]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Serve S3 and HTTP by TLS only, with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Take BUCKET.DOMAIN in the host name for a bucket (virtual-host style); may be given again
    #[arg(long = "s3-domain", value_name = "DOMAIN")]
    pub(crate) s3_domains: Vec<String>,
}

/// Where S3 is served; `None`: nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct S3At(pub(crate) Option<SocketAddr>);

fn parse_s3(text: &str) -> Result<S3At, String> {
    match text {
        "none" => Ok(S3At(None)),
        _ => text.parse().map(|address| S3At(Some(address))).map_err(|_| "IP:PORT, or none".to_owned()),
    }
}

/// How long a node must be unreachable to be replaced; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadAfter(pub(crate) Option<Duration>);

/// Bytes a second; `None`: as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HealRate(pub(crate) Option<u64>);

/// `invite`
#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// How long the ticket can be used, like 15m, 1h or 7d
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, default_value = "1h")]
    pub(crate) expires: Duration,
}

/// `bucket`
#[derive(Debug, Subcommand)]
pub(crate) enum Bucket {
    /// Create a bucket
    Create {
        /// 3 to 63 of a-z, 0-9, '-' and '.'
        #[arg(value_parser = parse_bucket)]
        name: String,
    },
    /// List the buckets
    Ls,
    /// Remove an empty bucket
    Rm {
        /// Which
        #[arg(value_parser = parse_bucket)]
        name: String,
    },
}

/// `key`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Create an access key and show its secret, once; it is good for all buckets unless some are named
    Create(KeyCreate),
    /// List the access keys
    Ls,
    /// Remove an access key: it is good for nothing any more
    Rm {
        /// Its id
        #[arg(value_parser = parse_access_key)]
        id: String,
    },
}

/// `key create`
#[derive(Debug, Args)]
pub(crate) struct KeyCreate {
    /// What to call it
    #[arg(default_value = "", hide_default_value = true, value_parser = parse_key_name)]
    pub(crate) name: String,
    /// A bucket that it may get and list objects of; may be repeated, as may the others
    #[arg(long, value_name = "BUCKET", value_parser = parse_bucket)]
    pub(crate) read: Vec<String>,
    /// A bucket that it may put objects to and remove them from as well
    #[arg(long, value_name = "BUCKET", value_parser = parse_bucket)]
    pub(crate) write: Vec<String>,
    /// A bucket that it may make, change and remove as well
    #[arg(long, value_name = "BUCKET", value_parser = parse_bucket)]
    pub(crate) owner: Vec<String>,
}

/// `put`
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The file, or - for stdin
    pub(crate) file: PathBuf,
    /// Where to; a KEY that is empty or ends with / gets the file's name
    #[arg(value_name = "BUCKET/KEY", value_parser = parse_place)]
    pub(crate) to: Place,
    /// Only if there is no such object
    #[arg(long, conflicts_with = "if_match")]
    pub(crate) if_absent: bool,
    /// Only if the object is still the one with this ETag
    #[arg(long, value_name = "ETAG", value_parser = parse_etag)]
    pub(crate) if_match: Option<String>,
    /// Metadata to keep with it; may be repeated
    #[arg(long, value_name = "K=V", value_parser = parse_meta)]
    pub(crate) meta: Vec<(String, String)>,
    /// Its media type [default: by the name's extension]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
}

/// `get`
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Which object
    #[arg(value_name = "BUCKET/KEY", value_parser = parse_object)]
    pub(crate) from: Place,
    /// A file (replaced if it is there), a folder, or - for stdout [default: stdout, or a file named after
    /// the key in the current folder if stdout is a terminal]
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) output: Option<PathBuf>,
    /// Which bytes, the first being 0: A-B with both included, A- to the end, -N for the last N
    #[arg(long, value_name = "A-B", value_parser = parse_range, allow_hyphen_values = true)]
    pub(crate) range: Option<Range>,
    /// Answer from what this node holds, without asking the others: may be old
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `ls`
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Which objects [default: list the buckets]
    #[arg(value_name = "BUCKET[/PREFIX]", value_parser = parse_place)]
    pub(crate) place: Option<Place>,
    /// With size, time and ETag
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Everything below, not only up to the next /
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Answer from what this node holds, without asking the others: may be old or incomplete
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `stat`
#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// Which object
    #[arg(value_name = "BUCKET/KEY", value_parser = parse_object)]
    pub(crate) object: Place,
    /// Answer from what this node holds, without asking the others: may be old
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `share`
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Which object
    #[arg(value_name = "BUCKET/KEY", value_parser = parse_object)]
    pub(crate) object: Place,
    /// For how long, like 15m, 1h or 7d, which is the most
    #[arg(long, value_name = "DURATION", value_parser = parse_link, default_value = "7d")]
    pub(crate) expires: Duration,
    /// Where people reach S3, as HOST:PORT or a URL of it [default: where this node serves it]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
}

/// `rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Which objects
    #[arg(value_name = "BUCKET/KEY", value_parser = parse_object, required = true)]
    pub(crate) objects: Vec<Place>,
}

/// `drain`
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Which node: its id, or the start of it, as `pando status` shows it
    #[arg(value_parser = parse_node)]
    pub(crate) node: String,
    /// Even if fewer nodes remain than there should be copies of everything
    #[arg(long, conflicts_with = "undo")]
    pub(crate) force: bool,
    /// Let a draining node stay after all
    #[arg(long)]
    pub(crate) undo: bool,
    /// Don't wait until it has left
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `remove`
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Which node: its id, or the start of it, as `pando status` shows it
    #[arg(value_parser = parse_node)]
    pub(crate) node: String,
    /// Even if it is up, and even if the others may have no room
    #[arg(long)]
    pub(crate) force: bool,
    /// Even if what only it, and others that are down now, held is lost
    #[arg(long)]
    pub(crate) accept_loss: bool,
}

/// `plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// A node that would leave; may be repeated
    #[arg(long, value_name = "NODE", value_parser = parse_node)]
    pub(crate) drain: Vec<String>,
    /// A node that would join: how much it would offer, and its zone; may be repeated
    #[arg(long, value_name = "SIZE[@ZONE]", value_parser = parse_newcomer)]
    pub(crate) join: Vec<(u64, String)>,
}

/// `check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The owners also read and verify every byte: slower
    #[arg(long)]
    pub(crate) deep: bool,
}

/// `scrub`
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Start anew, as fast as it may, and wait until all is verified
    #[arg(long)]
    pub(crate) now: bool,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Store this file instead of generated data
    #[arg(long, conflicts_with = "size")]
    pub(crate) file: Option<PathBuf>,
    /// How much data to generate
    #[arg(long, value_parser = units::parse_size, default_value = "256M")]
    pub(crate) size: u64,
}

/// A bucket, and a key or prefix in it (or nothing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

fn parse_bucket(text: &str) -> Result<String, String> {
    RegisterName::bucket(text).map_err(|why| why.to_string())?;
    Ok(text.to_owned())
}

fn parse_access_key(text: &str) -> Result<String, String> {
    RegisterName::access_key(text).map_err(|why| why.to_string())?;
    Ok(text.to_owned())
}

fn parse_key_name(text: &str) -> Result<String, String> {
    match text.len() <= MAX_KEY_NAME {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("the name of a key has at most {MAX_KEY_NAME} bytes, this one has {}", text.len()))
        }
    }
}

fn parse_place(text: &str) -> Result<Place, String> {
    let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
    RegisterName::object_prefix(bucket, key).map_err(|why| why.to_string())?;
    Ok(Place { bucket: bucket.to_owned(), key: key.to_owned() })
}

fn parse_object(text: &str) -> Result<Place, String> {
    let place = parse_place(text)?;
    if place.key.is_empty() {
        return Err(format!("a key is missing: write {}/KEY", place.bucket));
    }
    Ok(place)
}

fn parse_link(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text)? {
        Duration::ZERO => Err("a link that is never good is none".into()),
        time if time > LONGEST_LINK => Err("a link is good for 7d at most".into()),
        time => Ok(time),
    }
}

fn parse_etag(text: &str) -> Result<String, String> {
    let etag = text.trim_matches('"').parse::<pando_core::id::WriteId>();
    etag.map(|etag| etag.to_string()).map_err(|_| format!("{text:?} is not an ETag: `pando stat` shows it"))
}

fn parse_meta(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !name.contains(char::is_control) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form NAME=VALUE")),
    }
}

fn parse_replicas(text: &str) -> Result<Replicas, String> {
    match text.parse() {
        _ if text == "all" => Ok(Replicas::All),
        Ok(count @ 1..) => Ok(Replicas::Count(count)),
        _ => Err(format!("{text:?} is neither `all` nor a number from 1 to 255")),
    }
}

fn parse_zone(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_ZONE => Ok(text.to_owned()),
        _ => Err(format!("a zone's name has 1 to {MAX_ZONE} bytes")),
    }
}

fn parse_node(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(text.to_ascii_lowercase()),
        _ => Err(format!("{text:?} is not the start of a node's id: `pando status` shows them")),
    }
}

fn parse_newcomer(text: &str) -> Result<(u64, String), String> {
    let (size, zone) = text.split_once('@').unwrap_or((text, "default"));
    match units::parse_size(size)? {
        0 => Err("a node that offers nothing would get nothing".into()),
        size => Ok((size, parse_zone(zone)?)),
    }
}

fn parse_dead_after(text: &str) -> Result<DeadAfter, String> {
    match text {
        "never" => Ok(DeadAfter(None)),
        _ => match units::parse_duration(text).map_err(|why| format!("{why}, or `never`"))? {
            Duration::ZERO => Err("every node would count as dead at once; did you mean `never`?".into()),
            time => Ok(DeadAfter(Some(time))),
        },
    }
}

fn parse_heal_rate(text: &str) -> Result<HealRate, String> {
    match text {
        "unlimited" => Ok(HealRate(None)),
        _ => match units::parse_size(text).map_err(|why| format!("{why}, or `unlimited`"))? {
            0 => Err("at that rate nothing is ever mended; did you mean `unlimited`?".into()),
            rate => Ok(HealRate(Some(rate))),
        },
    }
}

fn parse_range(text: &str) -> Result<Range, String> {
    let wrong = || format!("{text:?} is not a range: write 0-1023, 1024- or -1024");
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u64>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    match text.split_once('-').ok_or_else(wrong)? {
        ("", count) => Ok(Range::Last(number(count)?)),
        (first, "") => Ok(Range::From(number(first)?)),
        (first, last) => match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok(Range::Inclusive(first, last)),
            _ => Err(format!("{text:?} is not a range: it ends before it begins")),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges_read() {
        assert_eq!(parse_range("0-0"), Ok(Range::Inclusive(0, 0)));
        assert_eq!(parse_range("7-"), Ok(Range::From(7)));
        assert_eq!(parse_range("-9"), Ok(Range::Last(9)));
        for bad in ["", "-", "5", "9-7", "a-b", "1-2-3", "+1-2", "--2"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_read() {
        let place = parse_place("photos/a/b.jpg").unwrap();
        assert_eq!((place.bucket.as_str(), place.key.as_str()), ("photos", "a/b.jpg"));
        assert_eq!(parse_place("photos").unwrap().key, "");
        for bad in ["photos", "photos/", "/key", "", "Photos/x"] {
            assert!(parse_object(bad).is_err(), "{bad}");
        }
        assert!(parse_object(&format!("photos/{}", "k".repeat(1025))).is_err());
    }

    #[test]
    fn nodes_and_newcomers_read() {
        assert_eq!(parse_node("27F2").as_deref(), Ok("27f2"));
        for bad in ["", "xyz", "27f2 *", &"0".repeat(65)] {
            assert!(parse_node(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_newcomer("1T"), Ok((1 << 40, "default".to_owned())));
        assert_eq!(parse_newcomer("500G@cellar"), Ok((500 << 30, "cellar".to_owned())));
        for bad in ["", "@cellar", "1T@", "0@cellar", "much"] {
            assert!(parse_newcomer(bad).is_err(), "{bad}");
        }
        assert!(parse_zone(&"z".repeat(MAX_ZONE + 1)).is_err());
    }

    #[test]
    fn limits_read() {
        let default = |seconds| Ok(DeadAfter(Some(Duration::from_secs(seconds))));
        assert_eq!(parse_dead_after("90s"), default(90));
        assert_eq!(parse_dead_after("never"), Ok(DeadAfter(None)));
        assert_eq!(parse_heal_rate("50M"), Ok(HealRate(Some(50 << 20))));
        assert_eq!(parse_heal_rate("unlimited"), Ok(HealRate(None)));
        for bad in ["0s", "soon", ""] {
            assert!(parse_dead_after(bad).is_err() && parse_heal_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_heal_rate("0").is_err());
        let Command::Up(up) = Cli::try_parse_from(["pando", "up"]).unwrap().command else { panic!() };
        assert_eq!(up.dead_after, DeadAfter(Some(pando_node::DEFAULT_DEAD_AFTER)));
        assert_eq!(up.heal_rate, HealRate(None));
    }

    #[test]
    fn conditions_exclude_each_other() {
        let etag = "00".repeat(16);
        let put = |more: &[&str]| {
            let base = ["pando", "put", "-", "default/x"];
            Cli::try_parse_from(base.iter().chain(more))
        };
        assert!(put(&["--if-absent"]).is_ok() && put(&["--if-match", &etag]).is_ok());
        assert!(put(&["--if-absent", "--if-match", &etag]).is_err());
        assert!(put(&["--if-match", "xyz"]).is_err() && put(&["--meta", "=x"]).is_err());
        assert!(put(&["--meta", "\u{1}ours=x"]).is_err());
    }
}
