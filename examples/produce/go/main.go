// Command go produces three events about each of five orders, for hookline to
// deliver.
//
//	go run . BOOTSTRAP TOPIC
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type order struct {
	ID string `json:"id"`
}

type event struct {
	Type  string    `json:"type"`
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	Order order     `json:"order"`
}

func main() {
	bootstrap, topic := os.Args[1], os.Args[2]
	// By default acks=all and an idempotent producer: an event is stored on all
	// in-sync replicas before it counts as sent, and the client's own retries
	// neither repeat nor reorder.
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic), kgo.RecordDeliveryTimeout(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for i := 1; i <= 5; i++ {
		id := fmt.Sprintf("go-%d", i)
		for _, what := range []string{"placed", "paid", "shipped"} {
			value, err := json.Marshal(event{Type: "order." + what, ID: id + "-" + what, At: time.Now(), Order: order{ID: id}})
			if err != nil {
				log.Fatal(err)
			}
			// One key for all events of an order: one partition, hence one order of events.
			records = append(records, kgo.KeySliceRecord([]byte(id), value))
		}
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		log.Fatalf("not all events were stored: %v", err)
	}
	fmt.Printf("produced %d events\n", len(records))
}
