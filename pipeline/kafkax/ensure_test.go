package kafkax_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

func TestEnsureTopicsMakesAndFindsThem(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		cfg := kafkax.DefaultConfig()
		cfg.Brokers, cfg.Partitions, cfg.TopicPrefix = addrs, 3, testkit.Unique(t, "ensure")+"."
		adm, topics := kadm.NewClient(client(t, addrs)), cfg.Topics()
		rep, err := kafkax.EnsureTopics(within(t), adm, &cfg, topics.WebhookCalled())
		if err != nil || rep.Err() != nil {
			t.Fatal(err, rep.Err())
		}
		if len(rep.Created) != 16 || slices.Contains(rep.Created, topics.AttemptsJSON()) || !slices.Contains(rep.Created, topics.WebhookCalled()) {
			t.Errorf("made %v", rep.Created)
		}
		rep, err = kafkax.EnsureTopics(within(t), adm, &cfg)
		if err != nil || rep.Err() != nil || len(rep.Created) != 0 {
			t.Fatalf("the second time: %v, %v, made %v", err, rep.Err(), rep.Created)
		}
		details, err := adm.ListTopics(within(t), topics.Deliveries(), topics.Subscriptions(), topics.Dead())
		if err != nil || len(details[topics.Deliveries()].Partitions) != 3 || len(details[topics.Subscriptions()].Partitions) != 1 || len(details[topics.Dead()].Partitions) != 3 {
			t.Errorf("partitions %v, %v", details, err)
		}
	})
}

func TestEnsureTopicsFindsWhatIsWrong(t *testing.T) {
	c := testkit.KFake(t, kfake.NumBrokers(3))
	cfg := kafkax.DefaultConfig()
	cfg.Brokers = c.ListenAddrs()
	topics := cfg.Topics()
	good := map[string]string{"max.message.bytes": "2000000", "retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete", "min.insync.replicas": "2"}
	make := func(topic string, partitions int32, change map[string]string) {
		t.Helper()
		configs := map[string]string{}
		for _, m := range []map[string]string{good, change} {
			for k, v := range m {
				configs[k] = v
			}
		}
		if err := c.CreateTopic(topic, partitions, configs); err != nil {
			t.Fatal(err)
		}
	}
	make(topics.Deliveries(), 32, nil)
	make(topics.Parked(), 6, nil)
	make(topics.Retry(1), 32, map[string]string{"retention.ms": "604800000"})
	make(topics.Retry(2), 32, map[string]string{"max.message.bytes": "1048576"})
	make(topics.Retry(3), 32, map[string]string{"cleanup.policy": "compact"})
	make(topics.Lanes(), 32, nil)
	make(topics.Subscriptions(), 2, map[string]string{"cleanup.policy": "compact"})
	make(topics.Dead(), 8, nil)
	make(topics.Attempts(), 9, map[string]string{"retention.ms": "1000000"}) // as one likes
	rep, err := kafkax.EnsureTopics(within(t), kadm.NewClient(client(t, cfg.Brokers)), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]kafkax.Problem{}
	for _, p := range rep.Problems {
		if _, twice := got[p.Topic]; twice {
			t.Errorf("two problems with %s: %s", p.Topic, p)
		}
		got[p.Topic] = p
	}
	for topic, want := range map[string][2]string{
		topics.Parked():        {"6 partitions, not 32", "delete that one while it is empty"},
		topics.Retry(1):        {"retention.ms is 604800000", "kafka-configs.sh"},
		topics.Retry(2):        {"max.message.bytes is 1048576", "max.message.bytes=1179648"},
		topics.Retry(3):        {"cleanup.policy", "cleanup.policy=delete"},
		topics.Lanes():         {"cleanup.policy", "--entity-name hookline.lanes --add-config cleanup.policy=compact"},
		topics.Subscriptions(): {"2 partitions, not 1", "delete the topic"},
		topics.Dead():          {"8 partitions, not 32", "--alter --topic hookline.dead --partitions 32"},
	} {
		p := got[topic]
		if !strings.Contains(p.What, want[0]) || !strings.Contains(p.Fix, want[1]) {
			t.Errorf("%s: %q", topic, p.String())
		}
		delete(got, topic)
	}
	if len(got) != 0 {
		t.Errorf("problems that are none: %v", got)
	}
	if err := rep.Err(); err == nil || strings.Count(err.Error(), "\n") != 6 {
		t.Errorf("as an error: %v", err)
	}
}

// Topics that were made with another PARTITIONS have one remedy: that nothing is
// altered, which cannot be taken back.
func TestAnotherNumberOfPartitionsHasOneRemedy(t *testing.T) {
	cfg := kafkax.DefaultConfig()
	cfg.Brokers, cfg.Partitions = testkit.KFake(t).ListenAddrs(), 6
	adm := kadm.NewClient(client(t, cfg.Brokers))
	if rep, err := kafkax.EnsureTopics(within(t), adm, &cfg); err != nil || rep.Err() != nil {
		t.Fatal(err, rep.Err())
	}
	for _, partitions := range []int32{12, 3} {
		cfg.Partitions = partitions
		rep, err := kafkax.EnsureTopics(within(t), adm, &cfg)
		if err != nil || len(rep.Problems) != len(cfg.Topics().TaskTopics()) {
			t.Errorf("%v, problems %v", err, rep.Problems)
		}
		for _, p := range rep.Problems {
			if !strings.HasPrefix(p.Fix, "set HOOKLINE_PARTITIONS=6;") {
				t.Errorf("%s", p.String())
			}
		}
	}
}

func TestThreeReplicasNeedTwoInSync(t *testing.T) {
	for _, replication := range []int16{0, 3} {
		cfg := kafkax.DefaultConfig()
		cfg.Brokers, cfg.Replication = testkit.KFake(t, kfake.NumBrokers(3)).ListenAddrs(), replication
		adm := kadm.NewClient(client(t, cfg.Brokers))
		rep, err := kafkax.EnsureTopics(within(t), adm, &cfg)
		if err != nil || rep.Err() != nil {
			t.Fatal(err, rep.Err())
		}
		details, err := adm.ListTopics(within(t), cfg.Topics().Deliveries())
		if err != nil {
			t.Fatal(err)
		}
		if details[cfg.Topics().Deliveries()].Partitions.NumReplicas() < 3 {
			t.Fatalf("replication %d gave %d replicas", replication, details[cfg.Topics().Deliveries()].Partitions.NumReplicas())
		}
		configs, err := adm.DescribeTopicConfigs(within(t), cfg.Topics().Deliveries())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range configs[0].Configs {
			if kv.Key == "min.insync.replicas" && kv.MaybeValue() != "2" {
				t.Errorf("replication %d: min.insync.replicas is %s", replication, kv.MaybeValue())
			}
		}
	}
}

func TestMoreReplicasThanBrokersIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real Kafka")
	}
	cfg := kafkax.DefaultConfig()
	cfg.Brokers, cfg.Replication, cfg.TopicPrefix = shared.Get(t).Addrs(), 3, testkit.Unique(t, "replicas")+"."
	rep, err := kafkax.EnsureTopics(within(t), kadm.NewClient(client(t, cfg.Brokers)), &cfg)
	if err != nil || len(rep.Created) != 0 || len(rep.Problems) == 0 || !strings.Contains(rep.Problems[0].Fix, "HOOKLINE_REPLICATION") {
		t.Errorf("%v, %+v", err, rep)
	}
}
