//! Windows Remote Management (MS-WSMV): a command on a host, in five operations of SOAP.
//!
//! What must stay true: what a command is given travels on its standard input only; every wait for output has an end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::http::{Http, LONGEST, strange};
use super::shell::{PROGRAM, arguments};
use super::xml;

/// Most times that output is asked for.
const MOST_RECEIVES: usize = 60;
const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
/// The code of a fault that only says that there is no output yet.
const NOTHING_YET: &str = "2150858793";

/// Somebody who is logged in.
pub(super) struct Session {
    pub(super) http: Http,
}

/// The name of a message: a random one.
fn message_id() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A SOAP message.
fn envelope(host: &str, action: &str, shell: Option<&str>, options: &str, body: &str) -> String {
    let selector = shell
        .map(|id| format!("<w:SelectorSet><w:Selector Name=\"ShellId\">{id}</w:Selector></w:SelectorSet>"))
        .unwrap_or_default();
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" xmlns:rsp=\"{SHELL}\"><s:Header>\
         <a:To>http://{host}/wsman</a:To><w:ResourceURI s:mustUnderstand=\"true\">{SHELL}/cmd</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">\
         http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
         <w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize><a:MessageID>{}</a:MessageID>\
         <w:OperationTimeout>PT10S</w:OperationTimeout>{selector}{options}</s:Header><s:Body>{body}</s:Body></s:Envelope>",
        message_id()
    )
}

impl Session {
    /// One message and its answer; a fault is an answer.
    async fn ask(&mut self, message: &str) -> Result<String, Failure> {
        let (status, text) = self.http.ask(message).await?;
        let good = status.is_success() || fault(&text).is_some();
        if good { Ok(text) } else { Err(strange(&format!("HTTP {}", status.as_u16()))) }
    }

    async fn must(&mut self, message: &str, what: &str) -> Result<String, Failure> {
        let answer = self.ask(message).await?;
        match fault(&answer) {
            None => Ok(answer),
            Some((code, _)) if code == "5" => Err(Failure::new(
                FailureClass::Privilege,
                format!("the host does not let the acting account {what}: access denied"),
                "make it a member of Remote Management Users, or of Administrators",
            )),
            Some((code, said)) => Err(strange(&format!("it will not {what} (fault {code}: {said})"))),
        }
    }

    /// Runs PowerShell with this input, and gives its output. `sending` is called just before the input leaves.
    pub(super) async fn run(&mut self, input: &str, sending: &(dyn Fn() + Sync)) -> Result<String, Failure> {
        let host = self.http.host.clone();
        let options = "<w:OptionSet><w:Option Name=\"WINRS_NOPROFILE\">TRUE</w:Option>\
                       <w:Option Name=\"WINRS_CODEPAGE\">65001</w:Option></w:OptionSet>";
        let body = "<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>";
        let answer =
            self.must(&envelope(&host, &format!("{TRANSFER}/Create"), None, options, body), "open a shell").await?;
        let shell = xml::text(&answer, "ShellId").or_else(|| {
            let named = |e: &xml::Element<'_>| e.attribute("Name") == Some("ShellId");
            xml::elements(&answer, "Selector").find(named).map(|e| e.text.trim())
        });
        let shell = shell.filter(|id| id.len() <= 64).ok_or_else(|| strange("no shell"))?.to_owned();
        let options = "<w:OptionSet><w:Option Name=\"WINRS_CONSOLEMODE_STDIN\">FALSE</w:Option>\
                       <w:Option Name=\"WINRS_SKIP_CMD_SHELL\">TRUE</w:Option></w:OptionSet>";
        let body = format!(
            "<rsp:CommandLine><rsp:Command>{PROGRAM}</rsp:Command><rsp:Arguments>{}</rsp:Arguments></rsp:CommandLine>",
            arguments()
        );
        let message = envelope(&host, &format!("{SHELL}/Command"), Some(&shell), options, &body);
        let answer = self.must(&message, "run a command").await?;
        let command =
            xml::text(&answer, "CommandId").filter(|id| id.len() <= 64).ok_or_else(|| strange("no command"))?;
        let body = Zeroizing::new(format!(
            "<rsp:Send><rsp:Stream Name=\"stdin\" CommandId=\"{command}\" End=\"true\">{}</rsp:Stream></rsp:Send>",
            BASE64.encode(input.as_bytes())
        ));
        let message = Zeroizing::new(envelope(&host, &format!("{SHELL}/Send"), Some(&shell), "", &body));
        sending();
        self.must(&message, "give a command its input").await?;
        let output = self.receive(&host, &shell, command).await?;
        let farewell = envelope(&host, &format!("{TRANSFER}/Delete"), Some(&shell), "", "");
        let _ = self.ask(&farewell).await;
        Ok(output)
    }

    async fn receive(&mut self, host: &str, shell: &str, command: &str) -> Result<String, Failure> {
        let mut output = Vec::new();
        let body = format!(
            "<rsp:Receive><rsp:DesiredStream CommandId=\"{command}\">stdout stderr</rsp:DesiredStream></rsp:Receive>"
        );
        for _ in 0..MOST_RECEIVES {
            let answer = self.ask(&envelope(host, &format!("{SHELL}/Receive"), Some(shell), "", &body)).await?;
            match fault(&answer) {
                Some((code, _)) if code == NOTHING_YET => continue,
                Some((code, said)) => return Err(strange(&format!("it gives no output (fault {code}: {said})"))),
                None => {}
            }
            for stream in xml::elements(&answer, "Stream").filter(|e| e.attribute("Name") == Some("stdout")) {
                let piece = BASE64.decode(stream.text.trim()).map_err(|_| strange("its output is broken"))?;
                output.extend_from_slice(&piece);
                if output.len() > LONGEST {
                    return Err(strange("its output is too long"));
                }
            }
            let state = xml::elements(&answer, "CommandState").next();
            if state.is_some_and(|state| state.attribute("State").is_some_and(|state| state.ends_with("/Done"))) {
                return Ok(String::from_utf8_lossy(&output).into_owned());
            }
        }
        Err(strange("its output never ends"))
    }
}

/// The code and the words of a fault.
fn fault(answer: &str) -> Option<(String, String)> {
    let fault = xml::elements(answer, "Fault").next()?;
    let code = xml::elements(fault.text, "WSManFault").next().and_then(|e| e.attribute("Code").map(str::to_owned));
    let said =
        xml::text(fault.text, "Text").unwrap_or_default().chars().filter(|c| !c.is_control()).take(160).collect();
    Some((code.unwrap_or_else(|| "unknown".to_owned()), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_with_its_code_and_its_words() {
        let answer = "<s:Fault><s:Reason><s:Text xml:lang=\"\">No</s:Text></s:Reason><s:Detail>\
                      <f:WSManFault Code=\"5\" Machine=\"x\"/></s:Detail></s:Fault>";
        assert_eq!(fault(answer), Some(("5".into(), "No".into())));
    }
}
