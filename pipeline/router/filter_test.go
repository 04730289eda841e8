package router

import (
	"slices"
	"testing"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
	"github.com/hookline/hookline/pipeline/match"
)

// matched is an index of package match as a Matcher.
type matched struct{ *match.Index }

func (matched) Version() int64 { return 7 }

const editedTask = `{"entityId":"t1","type":"TASK_EDITED","createdAt":"2025-03-04T05:06:07.000Z","data":{"operation":"UPDATE",` +
	`"current":{"id":"t1","organizationId":"o1","name":"Paint","endAt":"2025-03-04T16:00:00Z"},` +
	`"previous":{"id":"t1","organizationId":"o1","name":"Paint","endAt":"2025-03-04T12:00:00Z"}}}`

// TestFiltersDecideWhatIsRouted: from records to deliveries.
func TestFiltersDecideWhatIsRouted(t *testing.T) {
	var subs []*pipeline.Subscription
	for _, s := range []struct{ id, filter string }{
		{"all", ""},
		{"ends", `changed.endAt`},
		{"names", `changed.name`},
		{"active", `data.isActive == true`},
		{"other", `hookline.tenant == "o2"`},
	} {
		one := &pipeline.Subscription{ID: s.id, Tenant: pipeline.AnyTenant, Events: []string{"*"}, Filter: s.filter, State: pipeline.StateActive}
		if s.filter != "" {
			p, err := filter.Compile(s.filter, nil)
			if err != nil {
				t.Fatal(err)
			}
			one.Extra = p
		}
		subs = append(subs, one)
	}
	for _, tt := range []struct {
		name, spec, topic, value string
		want                     []string
	}{
		{"task", "task.events=task", "task.events", editedTask, []string{"all", "ends"}},
		{"cotalker, active", "cot=cotalker", "cot", `{"company":"0123456789abcdef01234567","type":"COTTask","createdAt":"2025-03-04T05:06:07.000Z","data":{"_id":"d1","isActive":true},"event":"create"}`, []string{"active", "all"}},
		{"cotalker, not active", "cot=cotalker", "cot", `{"company":"0123456789abcdef01234567","type":"COTTask","createdAt":"2025-03-04T05:06:07.000Z","data":{"_id":"d1","isActive":false},"event":"create"}`, []string{"all"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.spec)
			x := matched{match.NewIndex(slices.Values(subs))}
			b.deps.Matcher = func() Matcher { return x }
			b.topic(tt.topic, 1)
			b.produce(event(tt.topic, 0, tt.value))
			_, stop := b.start()
			b.read("hookline.deliveries", 1)
			b.eventually("the transaction is counted", func() bool { return b.count.get(tt.spec[len(tt.topic)+1:]+"/routed") == 1 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range b.all("hookline.deliveries") {
				if string(r.Value) != tt.value {
					t.Errorf("the payload was changed: %s", r.Value)
				}
				_, ids := decode(t, r)
				got = append(got, ids...)
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("routed to %q, want %q", got, tt.want)
			}
		})
	}
}
