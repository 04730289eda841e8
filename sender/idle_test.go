package sender

import (
	"crypto/tls"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// idleLoad is posts to receivers that close idle connections, each after a time
// of its own, spread evenly by order of magnitude.
type idleLoad struct {
	receivers, posts int // posts to each receiver
	shortest         time.Duration
	longest          time.Duration
	span             time.Duration // how long it may take
}

// TestIdleCloseOverAllTimes: of posts whose gaps are short or end right when the
// receiver closes, none fails and none arrives twice. HOOKLINE_E2E_FULL=1 has
// 10,000 posts and times from 1 ms to 60 s, and takes a little over two minutes.
func TestIdleCloseOverAllTimes(t *testing.T) {
	l := idleLoad{receivers: 50, posts: 40, shortest: time.Millisecond, longest: 600 * time.Millisecond, span: 1300 * time.Millisecond}
	if os.Getenv("HOOKLINE_E2E_FULL") == "1" {
		l = idleLoad{receivers: 100, posts: 100, shortest: time.Millisecond, longest: time.Minute, span: 125 * time.Second}
	}
	ca, roots := authority(t)
	cert := certificate(t, nil, &ca)
	cfg := localConfig()
	cfg.IdleConnectionTimeout = 2 * time.Minute // it is always the receiver that closes
	c := newClient(t, cfg, Deps{RootCAs: roots})
	var resends, atEdge, conns atomic.Int64
	var work sync.WaitGroup
	for i := range l.receivers {
		idle := time.Duration(float64(l.shortest) * math.Pow(float64(l.longest)/float64(l.shortest), float64(i)/float64(l.receivers-1)))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		scheme := "http://"
		if i%4 == 3 {
			scheme, ln = "https://", tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
		srv := serveRawOn(t, ln, closesIdle(idle))
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			edges := min(l.posts, int(l.span/idle))
			for n := range l.posts {
				res := send(c, request(scheme+srv.addr()+"/"))
				if res.Outcome != pipeline.OutcomeSuccess {
					t.Errorf("idle %s, post %d: %s %q", idle, n, res.Outcome, res.Error)
				}
				resends.Add(int64(res.Resends))
				gap := time.Duration(rng.Int64N(int64(min(idle, 4*time.Millisecond))))
				if (n+1)*edges/l.posts > n*edges/l.posts && n+1 < l.posts {
					atEdge.Add(1)
					gap = idle + time.Duration(rng.Int64N(int64(2*time.Millisecond))) - time.Millisecond
				}
				time.Sleep(gap) // the race itself is what is tested: no signal can stand in for it
			}
			if got := srv.requests.Load(); got != int64(l.posts) {
				t.Errorf("idle %s: %d requests arrived of %d posts", idle, got, l.posts)
			}
			conns.Add(srv.conns.Load())
		})
	}
	work.Wait()
	t.Logf("%d posts to %d receivers that close after %s to %s, %d of them within 1 ms of that: %d connections, %d sent again within the same try",
		l.receivers*l.posts, l.receivers, l.shortest, l.longest, atEdge.Load(), conns.Load(), resends.Load())
	if atEdge.Load() == 0 || conns.Load() <= int64(l.receivers) {
		t.Error("no receiver has closed a connection: nothing was tested")
	}
}
