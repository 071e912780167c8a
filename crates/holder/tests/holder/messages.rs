//! The binary messages: what is encoded comes back, and nothing else is taken for a message.

use proptest::prelude::*;
use volvelle_fragments::Encoded;
use volvelle_holder::eval::{Answer, EvalAnswers, EvalRequest, LARGEST_BATCH, Operation, Proving};

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![Just(Operation::Seal), Just(Operation::Open), Just(Operation::Rewrap), Just(Operation::Probe)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|y| Answer::Evaluated(Encoded::of(&y).expect("32 bytes"))),
        any::<[u8; 33]>().prop_map(|y| Answer::Evaluated(Encoded::of(&y).expect("33 bytes"))),
        Just(Answer::Denied),
        Just(Answer::Rate),
        Just(Answer::Tombstone),
        Just(Answer::Bad)
    ]
}

proptest! {
    #[test]
    fn a_request_comes_back(
        operation in operation(),
        proved: bool,
        (realm, key_id, epoch, request_id) in any::<([u8; 16], u32, u32, [u8; 16])>(),
        principal in "[a-zäß/]{0,40}",
        authorization in proptest::collection::vec(any::<u8>(), 0..600),
        inputs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..LARGEST_BATCH),
    ) {
        let proving = if proved { Proving::Proved } else { Proving::Optimistic };
        let inputs = inputs.iter().map(Vec::as_slice).collect();
        let (principal, authorization) = (principal.as_str(), authorization.as_slice());
        let request =
            EvalRequest { operation, proving, realm, key_id, epoch, request_id, principal, authorization, inputs };
        let bytes = request.encode().expect("short");
        prop_assert_eq!(EvalRequest::decode(&bytes).expect("sound"), request);
        prop_assert!(EvalRequest::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(EvalRequest::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn answers_come_back(
        epoch: u32,
        answers in proptest::collection::vec(answer(), 1..LARGEST_BATCH),
        proof in proptest::option::of(proptest::collection::vec(any::<u8>(), 64)),
    ) {
        let proof = proof.map(|bytes| bytes.try_into().expect("64 bytes"));
        let answers = EvalAnswers { epoch, answers, proof };
        let bytes = answers.encode().expect("short");
        prop_assert_eq!(EvalAnswers::decode(&bytes).expect("sound"), answers);
        prop_assert!(EvalAnswers::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(EvalAnswers::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_borne_and_only_canonical_ones_are_taken(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        operation in 0_u8..6,
        flags in 0_u8..3,
    ) {
        if let Ok(request) = EvalRequest::decode(&bytes) {
            prop_assert_eq!(request.encode().expect("short"), bytes.clone());
        }
        if let Ok(answers) = EvalAnswers::decode(&bytes) {
            prop_assert_eq!(answers.encode().expect("short"), bytes.clone());
        }
        // The same with a likely beginning, so that the parser comes further.
        if bytes.len() > 60 {
            (bytes[0], bytes[1], bytes[42]) = (operation, flags, 0);
            if let Ok(request) = EvalRequest::decode(&bytes) {
                prop_assert_eq!(request.encode().expect("short"), bytes.clone());
            }
            bytes[4..7].copy_from_slice(&[flags, 0, 1]);
            if let Ok(answers) = EvalAnswers::decode(&bytes) {
                prop_assert_eq!(answers.encode().expect("short"), bytes);
            }
        }
    }
}
