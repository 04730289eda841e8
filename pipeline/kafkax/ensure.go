package kafkax

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Problem is one thing that is wrong with a topic.
type Problem struct {
	Topic string
	What  string
	Fix   string // the command or setting that mends it
}

func (p Problem) String() string { return p.Topic + ": " + p.What + " (" + p.Fix + ")" }

// Report is what EnsureTopics did and found.
type Report struct {
	Created  []string
	Problems []Problem
}

// Err is nil where there are no problems, else one line for each.
func (r *Report) Err() error {
	errs := make([]error, len(r.Problems))
	for i, p := range r.Problems {
		errs[i] = errors.New("checking topic " + p.String())
	}
	return errors.Join(errs...)
}

func (r *Report) add(topic, what, fix string) {
	r.Problems = append(r.Problems, Problem{topic, what, fix})
}

// EnsureTopics makes the topics that are missing and checks those that are
// there; it changes none of these. optional names the optional topics to make,
// too. The error is for not getting through to Kafka; what is wrong with topics
// is in the Report.
func EnsureTopics(ctx context.Context, adm *kadm.Client, cfg *Config, optional ...string) (Report, error) {
	var rep Report
	settings := cfg.Settings()
	names := make([]string, len(settings))
	for i := range settings {
		names[i] = settings[i].Topic
	}
	have, err := describe(ctx, adm, names)
	if err != nil {
		return rep, err
	}
	var missing []*Setting
	for i := range settings {
		s := &settings[i]
		if _, ok := have[s.Topic]; !ok && (!s.Optional || slices.Contains(optional, s.Topic)) {
			missing = append(missing, s)
		}
	}
	if err := create(ctx, adm, cfg, missing, &rep); err != nil {
		return rep, err
	}
	made := tasksMade(cfg, have)
	for i := range settings {
		if t, ok := have[settings[i].Topic]; ok {
			check(cfg, &settings[i], &t, made, &rep)
		}
	}
	return rep, nil
}

// madeWith says with how many partitions the topics of the tasks were made, which
// is what PARTITIONS must be.
type madeWith struct {
	partitions int  // of deliveries, or of the first that there is; 0: there is none
	differ     bool // they do not all have as many
}

func tasksMade(cfg *Config, have map[string]existing) madeWith {
	var m madeWith
	for _, topic := range cfg.Topics().TaskTopics() {
		t, ok := have[topic]
		switch {
		case !ok:
		case m.partitions == 0:
			m.partitions = t.partitions
		case t.partitions != m.partitions:
			m.differ = true
		}
	}
	return m
}

// existing is a topic as the brokers describe it.
type existing struct {
	partitions, replicas int
	configs              map[string]string
}

func describe(ctx context.Context, adm *kadm.Client, names []string) (map[string]existing, error) {
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	out := map[string]existing{}
	var there []string
	for _, d := range details {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case d.Err != nil:
			return nil, fmt.Errorf("describing topic %s: %w", d.Topic, d.Err)
		default:
			out[d.Topic] = existing{len(d.Partitions), d.Partitions.NumReplicas(), map[string]string{}}
			there = append(there, d.Topic)
		}
	}
	if len(there) == 0 {
		return out, nil
	}
	configs, err := adm.DescribeTopicConfigs(ctx, there...)
	if err != nil {
		return nil, fmt.Errorf("describing topics' configurations: %w", err)
	}
	for _, c := range configs {
		if c.Err != nil {
			return nil, fmt.Errorf("describing topic %s's configuration: %w", c.Name, c.Err)
		}
		for _, kv := range c.Configs {
			out[c.Name].configs[kv.Key] = kv.MaybeValue()
		}
	}
	return out, nil
}

// create makes the missing topics, all at once, and waits until every broker's
// clients can use them.
func create(ctx context.Context, adm *kadm.Client, cfg *Config, missing []*Setting, rep *Report) error {
	answers := make([]kadm.CreateTopicResponse, len(missing))
	errs := make([]error, len(missing))
	var wg sync.WaitGroup
	for i, s := range missing {
		wg.Go(func() {
			configs := make(map[string]*string, len(s.Configs))
			for k, v := range s.Configs {
				configs[k] = &v
			}
			rf := cfg.Replication
			if rf == 0 {
				rf = -1 // the brokers' default
			}
			answers[i], errs[i] = adm.CreateTopic(ctx, s.Partitions, rf, configs, s.Topic)
		})
	}
	wg.Wait()
	var there []string
	for i, s := range missing {
		ok, err := created(cfg, s, answers[i].ErrMessage, errs[i], rep)
		if err != nil {
			return err
		}
		if ok {
			there = append(there, s.Topic)
		}
	}
	if err := awaitTopics(ctx, adm, there); err != nil {
		return err
	}
	return twoInSync(ctx, adm, cfg, rep.Created)
}

// created sorts out one topic's answer; ok is true where the topic is there now.
func created(cfg *Config, s *Setting, message string, err error, rep *Report) (ok bool, _ error) {
	why := fmt.Sprintf("creating it failed: %v %s", err, message)
	switch {
	case err == nil:
		rep.Created = append(rep.Created, s.Topic)
		return true, nil
	case errors.Is(err, kerr.TopicAlreadyExists): // another process was faster, with the same settings
		return true, nil
	case errors.Is(err, kerr.InvalidReplicationFactor):
		rep.add(s.Topic, why, "set HOOKLINE_REPLICATION to at most the number of brokers")
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		rep.add(s.Topic, why, "allow this user to create topics, or run: "+createCommand(cfg, s))
	case errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidConfig):
		rep.add(s.Topic, why, createCommand(cfg, s))
	default:
		return false, fmt.Errorf("creating topic %s: %w", s.Topic, err)
	}
	return false, nil
}

// awaitTopics waits until the brokers tell the leaders of the topics, which real
// ones do a moment after they said that the topics are made.
func awaitTopics(ctx context.Context, adm *kadm.Client, topics []string) error {
	deadline := time.Now().Add(patience)
	for tries := 0; len(topics) > 0; tries++ {
		details, err := adm.ListTopics(ctx, topics...)
		if err != nil {
			return fmt.Errorf("waiting for new topics: %w", err)
		}
		topics = slices.DeleteFunc(topics, func(t string) bool { return details[t].Err == nil && len(details[t].Partitions) > 0 })
		if len(topics) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for new topics: after %v the brokers do not know %s yet", patience, topics[0])
		}
		if err := pause(ctx, tries); err != nil {
			return fmt.Errorf("waiting for new topics: %w", err)
		}
	}
	return nil
}

// twoInSync sets min.insync.replicas of new topics where the brokers' default
// turned out to be enough replicas for it.
func twoInSync(ctx context.Context, adm *kadm.Client, cfg *Config, topics []string) error {
	if cfg.Replication != 0 || len(topics) == 0 {
		return nil
	}
	details, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("counting the replicas of new topics: %w", err)
	}
	var enough []string
	for _, d := range details {
		if d.Err == nil && d.Partitions.NumReplicas() >= 3 {
			enough = append(enough, d.Topic)
		}
	}
	if len(enough) == 0 {
		return nil
	}
	two := "2"
	resp, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: configMinISR, Value: &two}}, enough...)
	for i := 0; err == nil && i < len(resp); i++ {
		err = resp[i].Err
	}
	if err != nil {
		return fmt.Errorf("setting %s of new topics: %w", configMinISR, err)
	}
	return nil
}

func check(cfg *Config, s *Setting, t *existing, made madeWith, rep *Report) {
	checkPartitions(cfg, s, t, made, rep)
	alter := func(what, key, value string) { rep.add(s.Topic, what, alterCommand(cfg, s.Topic, key, value)) }
	policy := t.configs[configCleanup]
	switch compacted := strings.Contains(policy, "compact"); {
	case s.Compacted && policy != "compact":
		alter(fmt.Sprintf("%s is %q; it must be compact, or state is lost", configCleanup, policy), configCleanup, "compact")
	case !s.Compacted && compacted:
		alter(fmt.Sprintf("%s is %q; it must be delete, or records are lost", configCleanup, policy), configCleanup, "delete")
	}
	if s.Unlimited {
		for _, key := range []string{configRetention, configRetentionLen} {
			if v := t.configs[key]; v != "-1" {
				alter(fmt.Sprintf("%s is %s; it must be -1, or waiting deliveries are lost (hookline removes what it does not need)", key, v), key, "-1")
			}
		}
	}
	if v, err := strconv.Atoi(t.configs[configMaxMessage]); err != nil || v < cfg.MaxMessageBytes() {
		alter(fmt.Sprintf("%s is %s; HOOKLINE_EVENT_MAX_BYTES=%v needs %d", configMaxMessage, t.configs[configMaxMessage], cfg.EventMaxBytes, cfg.MaxMessageBytes()),
			configMaxMessage, strconv.Itoa(cfg.MaxMessageBytes()))
	}
	isr, err := strconv.Atoi(t.configs[configMinISR])
	if err == nil && t.replicas >= 3 && isr < 2 {
		alter(fmt.Sprintf("%s is %d with %d replicas; an acknowledged record can be lost with one broker", configMinISR, isr, t.replicas), configMinISR, "2")
	}
	if err == nil && isr > t.replicas {
		alter(fmt.Sprintf("%s is %d with %d replicas; nothing can be written", configMinISR, isr, t.replicas), configMinISR, strconv.Itoa(max(1, t.replicas-1)))
	}
}

// checkPartitions reports a wrong number of partitions. Topics outside the tasks
// may have more than hookline would give them. Dead goes by the tasks' topics where
// PARTITIONS is wrong about these: partitions cannot be taken back.
func checkPartitions(cfg *Config, s *Setting, t *existing, made madeWith, rep *Report) {
	topics, want := cfg.Topics(), int(s.Partitions)
	if s.Topic == topics.Dead() && made.partitions > 0 {
		want = made.partitions
	}
	if t.partitions == want {
		return
	}
	what := fmt.Sprintf("it has %d partitions, not %d", t.partitions, want)
	switch {
	case s.Topic == topics.Subscriptions():
		rep.add(s.Topic, what, "its offsets are the registry's version: save the subscriptions, delete the topic, apply them again")
	case slices.Contains(topics.TaskTopics(), s.Topic) && made.differ:
		rep.add(s.Topic, what, "deliveries, retry.*, parked and lanes must have as many, HOOKLINE_PARTITIONS, as when they were made: was one made or altered by hand? delete that one while it is empty; hookline topics makes it")
	case slices.Contains(topics.TaskTopics(), s.Topic):
		rep.add(s.Topic, what, fmt.Sprintf("set HOOKLINE_PARTITIONS=%d; the number never changes after the topics were made", made.partitions))
	case s.Topic == topics.Dead() && t.partitions < want:
		rep.add(s.Topic, what, fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", strings.Join(cfg.Brokers, ","), s.Topic, want))
	}
}

func alterCommand(cfg *Config, topic, key, value string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s",
		strings.Join(cfg.Brokers, ","), topic, key, value)
}

func createCommand(cfg *Config, s *Setting) string {
	keys := make([]string, 0, len(s.Configs))
	for k := range s.Configs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d", strings.Join(cfg.Brokers, ","), s.Topic, s.Partitions)
	for _, k := range keys {
		fmt.Fprintf(&b, " --config %s=%s", k, s.Configs[k])
	}
	return b.String()
}
