// SPDX-License-Identifier: Apache-2.0
//! Where replicas are, as it stands in the settings: addresses, and which of them belong to one replica.

use std::fmt;

/// Addresses of one replica that are tried in turn.
const ENDPOINTS_MAX: usize = 16;
/// More copies of a log than anybody needs.
const REPLICAS_MAX: usize = 16;
/// Bytes of the name of a replica.
const NAME_BYTES_MAX: usize = 64;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl Replica {
    /// Its addresses as they stand in a list of replicas.
    pub fn addresses(&self) -> String {
        let addresses: Vec<String> = self.endpoints.iter().map(|at| format!("tcp://{at}")).collect();
        addresses.join("|")
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.addresses())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A replica of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// As it stands in the log and the status.
    pub name: String,
    /// Its addresses: at least one, tried in turn.
    pub endpoints: Vec<Endpoint>,
}

/// A list of `tcp://host:port` with commas between: the addresses of one replica.
///
/// # Errors
/// What was expected.
pub fn parse_endpoints(text: &str) -> Result<Vec<Endpoint>, String> {
    parse_list(text, ',', "commas")
}

fn parse_list(text: &str, separator: char, separators: &str) -> Result<Vec<Endpoint>, String> {
    let endpoints = text.split(separator).map(|one| {
        parse_endpoint(one.trim()).ok_or_else(|| {
            format!(
                "tcp://<host>:<port> was expected, or several with {separators} between; an IPv6 address stands in \
                 brackets, the port is between 0 and 65535"
            )
        })
    });
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    match endpoints.len() {
        ..=ENDPOINTS_MAX => Ok(endpoints),
        more => Err(format!("it has {more} addresses, at most {ENDPOINTS_MAX} were expected")),
    }
}

/// A list of `name=tcp://host:port` with commas between; bars part the addresses of one replica.
///
/// # Errors
/// What was expected, or which replicas cannot be told apart.
pub fn parse_replicas(text: &str) -> Result<Vec<Replica>, String> {
    let mut replicas: Vec<Replica> = Vec::new();
    for one in text.split(',') {
        if !one.contains('=') {
            return Err(format!(
                "<name>=tcp://<host>:<port> was expected, or several with commas between, found \"{one}\""
            ));
        }
        let replica = parse_replica(one)?;
        check_another(replicas.iter(), &replica)?;
        replicas.push(replica);
    }
    Ok(replicas)
}

/// One replica as it stands in a list of them; without a name its first address is its name.
///
/// # Errors
/// What was expected.
pub fn parse_replica(text: &str) -> Result<Replica, String> {
    let Some((name, list)) = text.split_once('=') else {
        let endpoints = parse_list(text, '|', "bars")?;
        return Ok(Replica { name: endpoints[0].to_string(), endpoints });
    };
    let name = name.trim();
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(harmless) {
        return Err(format!(
            "\"{name}\" is no name: 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores were expected"
        ));
    }
    Ok(Replica { name: name.to_owned(), endpoints: parse_list(list, '|', "bars")? })
}

/// Whether another replica can be told from those that are known.
///
/// # Errors
/// Why not, or that there are as many as there may be.
pub fn check_another<'a>(known: impl Iterator<Item = &'a Replica>, another: &Replica) -> Result<(), String> {
    let mut count = 0;
    for known in known {
        count += 1;
        if known.name == another.name {
            return Err(format!("two replicas have the name \"{}\"", another.name));
        }
        if known.endpoints.iter().any(|at| another.endpoints.contains(at)) {
            return Err(format!("\"{}\" and \"{}\" have an address in common", known.name, another.name));
        }
    }
    match count < REPLICAS_MAX {
        true => Ok(()),
        false => Err(format!("more replicas than {REPLICAS_MAX}, at most {REPLICAS_MAX} were expected")),
    }
}

/// An address in the form `tcp://<host>:<port>`.
pub fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let rest = text.strip_prefix("tcp://")?;
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:")?;
            // An address may carry the interface it belongs to: fe80::1%eth0.
            host.split('%').next()?.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = rest.split_once(':')?;
            let valid = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || !host.chars().all(valid) {
                return None;
            }
            (host, port)
        }
    };
    // `parse` would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    Some(Endpoint { host: host.to_owned(), port: port.parse().ok().filter(|_| digits)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_names_or_addresses_of_both_families() {
        let endpoints =
            parse_endpoints("tcp://db-2.example:1, tcp://10.0.0.1:65535,tcp://[::1]:3,tcp://[fe80::1%lo]:4").unwrap();
        let text: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
        assert_eq!(text, ["db-2.example:1", "10.0.0.1:65535", "[::1]:3", "[fe80::1%lo]:4"]);
        assert_eq!(endpoints[2].host, "::1");
    }

    #[test]
    fn replicas_have_names_and_addresses() {
        let replicas = parse_replicas("a=tcp://one:1|tcp://[::1]:2, b=tcp://two:3,c-2=tcp://three:4").unwrap();
        let found = replicas.iter().map(|replica| (replica.name.as_str(), replica.endpoints.len()));
        assert_eq!(found.collect::<Vec<_>>(), [("a", 2), ("b", 1), ("c-2", 1)]);
        let many: Vec<String> = (0..=REPLICAS_MAX).map(|n| format!("r{n}=tcp://h{n}:1")).collect();
        assert!(parse_replicas(&many.join(",")).unwrap_err().contains("at most 16"));
        assert_eq!(replicas[0].to_string(), "a=tcp://one:1|tcp://[::1]:2");
        let nameless = parse_replica("tcp://[::1]:2|tcp://b:1").unwrap();
        assert_eq!((nameless.name.as_str(), nameless.endpoints.len()), ("[::1]:2", 2));
    }

    #[test]
    fn replicas_that_cannot_be_told_apart_are_refused() {
        let bad = [
            ("", "was expected"),
            ("tcp://a:1", "<name>="),
            ("a=", "tcp://"),
            ("a=tcp://a:1,", "<name>="),
            ("=tcp://a:1", "no name"),
            ("a b=tcp://a:1", "no name"),
            ("a=tcp://a:1,a=tcp://b:1", "two replicas"),
            ("a=tcp://a:1|tcp://b:1,c=tcp://b:1", "in common"),
        ];
        for (list, why) in bad {
            let problem = parse_replicas(list).unwrap_err();
            assert!(problem.contains(why), "{list}: {problem}");
        }
    }
}
