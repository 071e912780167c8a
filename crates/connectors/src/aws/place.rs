//! Where IAM and STS are: by partition and region, or where the vendor's variables say.

use std::collections::BTreeMap;

use volvelle_domain::connector::Failure;

use super::config;

/// Endpoints given from outside, in the vendor's order of precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct Given(BTreeMap<&'static str, String>);

const VARIABLES: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_STS"];

impl Given {
    /// What the environment of this process says.
    pub(super) fn from_environment() -> Self {
        if std::env::var("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        let given = |name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?));
        Self(VARIABLES.into_iter().filter_map(given).collect())
    }

    /// One address for everything.
    pub(super) fn everything_at(url: &str) -> Self {
        Self(BTreeMap::from([(VARIABLES[0], url.to_owned())]))
    }

    fn of(&self, service: Service) -> Option<&str> {
        let own = match service {
            Service::Iam => VARIABLES[1],
            Service::Sts => VARIABLES[2],
        };
        self.0.get(own).or_else(|| self.0.get(VARIABLES[0])).map(String::as_str)
    }
}

/// The services that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Iam,
    Sts,
}

/// An endpoint, and the region under which its requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) region: String,
}

/// Beginning of the region's name, suffix of host names, IAM's host before it, and IAM's signing region.
const PARTITIONS: [(&str, &str, &str, &str); 6] = [
    ("cn-", "amazonaws.com.cn", "iam.cn-north-1", "cn-north-1"),
    ("us-gov-", "amazonaws.com", "iam.us-gov", "us-gov-west-1"),
    ("us-iso-", "c2s.ic.gov", "iam.us-iso-east-1", "us-iso-east-1"),
    ("us-isob-", "sc2s.sgov.gov", "iam.us-isob-east-1", "us-isob-east-1"),
    ("eusc-", "amazonaws.eu", "iam.eusc-de-east-1", "eusc-de-east-1"),
    ("", "amazonaws.com", "iam", "us-east-1"),
];

/// Finds a service for a region.
pub(super) fn place(given: &Given, service: Service, region: &str) -> Place {
    let (_, suffix, iam, iam_region) =
        PARTITIONS.into_iter().find(|(start, ..)| region.starts_with(start)).unwrap_or(PARTITIONS[5]);
    let (host, region) = match service {
        Service::Iam => (format!("{iam}.{suffix}"), iam_region.to_owned()),
        Service::Sts => (format!("sts.{region}.{suffix}"), region.to_owned()),
    };
    let url = given.of(service).map_or_else(|| format!("https://{host}"), |url| url.trim_end_matches('/').to_owned());
    Place { url, region }
}

/// Regions are letters, digits and hyphens; anything else would end up in a host name.
pub(super) fn check_region(region: &str, parameter: &str) -> Result<(), Failure> {
    let good = !region.is_empty()
        && region.len() <= 32
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if good {
        return Ok(());
    }
    Err(config(format!("{parameter} is no region of AWS"), format!("set {parameter}, for example us-east-2")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_hosts_of_their_own() {
        let given = Given::default();
        for (region, iam, iam_region, sts) in [
            ("us-east-2", "https://iam.amazonaws.com", "us-east-1", "https://sts.us-east-2.amazonaws.com"),
            (
                "cn-northwest-1",
                "https://iam.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "https://sts.cn-northwest-1.amazonaws.com.cn",
            ),
            (
                "us-gov-east-1",
                "https://iam.us-gov.amazonaws.com",
                "us-gov-west-1",
                "https://sts.us-gov-east-1.amazonaws.com",
            ),
        ] {
            assert_eq!(place(&given, Service::Iam, region), Place { url: iam.into(), region: iam_region.into() });
            assert_eq!(place(&given, Service::Sts, region), Place { url: sts.into(), region: region.into() });
        }
    }

    #[test]
    fn a_services_own_variable_wins() {
        let mut given = Given::everything_at("http://one/");
        given.0.insert("AWS_ENDPOINT_URL_STS", "http://two".to_owned());
        assert_eq!(place(&given, Service::Iam, "us-east-2").url, "http://one");
        assert_eq!(place(&given, Service::Sts, "us-east-2").url, "http://two");
        assert!(check_region("us-east-2.evil.example/", "region").is_err());
    }
}
