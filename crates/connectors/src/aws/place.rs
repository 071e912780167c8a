//! Where IAM and STS are: by partition and region, or where the vendor's variables say.

use std::collections::BTreeMap;

use volvelle_domain::connector::Failure;

use super::config;

/// Endpoints given from outside, in the vendor's order of precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct Given(BTreeMap<&'static str, String>);

const VARIABLES: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_STS"];

impl Given {
    /// What these variables say.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        if variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        let given = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
        Self(VARIABLES.into_iter().filter_map(given).collect())
    }

    fn at(&self, service: Service) -> Option<&str> {
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
    let url = given.at(service).map_or_else(|| format!("https://{host}"), |url| url.trim_end_matches('/').to_owned());
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
        let given = Given::of(&|name| match name {
            "AWS_ENDPOINT_URL" => Some("http://one/".to_owned()),
            "AWS_ENDPOINT_URL_STS" => Some("http://two".to_owned()),
            _ => None,
        });
        assert_eq!(place(&given, Service::Iam, "us-east-2").url, "http://one");
        assert_eq!(place(&given, Service::Sts, "us-east-2").url, "http://two");
        assert!(check_region("us-east-2.evil.example/", "region").is_err());
    }
}
