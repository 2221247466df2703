//! The log begins later than where a member is to go on.

use kafka::{Jump, Offset};

use crate::reader::read;
use crate::scene::{client, create, end, producer, send, shared};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_position_is_gone_goes_on_at_the_earliest_that_exists() {
    let bootstrap = shared();
    let client = client(&bootstrap);
    let partition = create(&client, "gone", &[]).await;
    let mut java = producer("gone", &bootstrap);
    java.command("producer p lz4").await;
    send(&mut java, "p", "gone", 0, 30).await;
    let begins = client.delete_records(&partition, Offset(20)).await.unwrap();
    assert_eq!(begins, Offset(20));

    let end = end(&client, &partition).await;
    let seen = read(&client, &partition, Offset(5), end).await;
    assert_eq!(seen.jumps, [Jump { from: Offset(5), to: Offset(20) }]);
    assert_eq!(seen.jumps[0].lost(), 15);
    assert_eq!(seen.numbers(), (20..30).collect::<Vec<_>>());

    let error = client.delete_records(&partition, Offset(31)).await.unwrap_err();
    assert!(error.to_string().contains("gone-0"), "{error}");
}
