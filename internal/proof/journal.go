package proof

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The files of a run's folder.
const (
	planFile    = "plan.json"
	eventsFile  = "events.jsonl"
	postsFile   = "posts.jsonl"
	repliesFile = "replies.jsonl"
	lettersFile = "letters.jsonl"
	commitsFile = "commits.jsonl"
	faultsFile  = "faults.jsonl"
	busyFile    = "busy.jsonl"
	straysFile  = "strays.jsonl"
	absentFile  = "absent.jsonl"
	sampleFile  = "samples.jsonl"
	rowsFile    = "rows.tsv"
)

// RowsQuery gives the rows that Load reads, in the order of its columns.
const RowsQuery = "SELECT attempt_id, delivery_id, attempt, outcome, toUInt8(request_written), resends FROM %s.attempts FORMAT TSV"

// Journal writes a run down. Its methods may be called at once.
type Journal struct {
	dir string

	mu    sync.Mutex
	files map[string]*file
}

// file is one of the journal's, with a group commit: who waits for its line to
// be on the disk waits for one sync together with all who came meanwhile.
type file struct {
	f *os.File

	mu    sync.Mutex
	buf   []byte // lines that are not written yet
	batch *batch // of buf; nil: buf is empty
	wake  chan struct{}
	done  chan struct{} // closed when the writer has ended
}

type batch struct {
	synced chan struct{}
	err    error // set before synced is closed
}

// NewJournal makes the folder and writes the plan. A folder that has the journal of
// another run is refused: the two would be judged as one.
func NewJournal(dir string, p *Plan) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal: %w", err)
	}
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encoding the plan: %w", err)
	}
	plan, err := os.OpenFile(filepath.Join(dir, planFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the journal: %s has that of another run (choose another folder, or remove it)", dir)
	}
	if err == nil {
		_, err = plan.Write(text)
		err = errors.Join(err, plan.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("writing the plan: %w", err)
	}
	return &Journal{dir: dir, files: map[string]*file{}}, nil
}

// Dir is the folder.
func (j *Journal) Dir() string { return j.dir }

func (j *Journal) file(name string) (*file, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if f := j.files[name]; f != nil {
		return f, nil
	}
	if j.files == nil {
		return nil, errors.New("the journal is closed")
	}
	raw, err := os.OpenFile(filepath.Join(j.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	f := &file{f: raw, wake: make(chan struct{}, 1), done: make(chan struct{})}
	j.files[name] = f
	go f.write() // ends with wake, which Close closes and waits for
	return f, nil
}

func (f *file) write() {
	defer close(f.done)
	for range f.wake {
		f.flush()
	}
	f.flush()
}

func (f *file) flush() {
	f.mu.Lock()
	buf, b := f.buf, f.batch
	f.buf, f.batch = nil, nil
	f.mu.Unlock()
	if b == nil {
		return
	}
	if _, b.err = f.f.Write(buf); b.err == nil {
		b.err = f.f.Sync()
	}
	close(b.synced)
}

// add appends a line and returns the batch that it is written with.
func (j *Journal) add(name string, line any) (*batch, error) {
	text, err := json.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("encoding a line of the journal: %w", err)
	}
	f, err := j.file(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(append(f.buf, text...), '\n')
	if f.batch == nil {
		f.batch = &batch{synced: make(chan struct{})}
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	return f.batch, nil
}

// Post writes p down and returns when it is on the disk.
func (j *Journal) Post(p *Post) error {
	b, err := j.add(postsFile, p)
	if err != nil {
		return err
	}
	<-b.synced
	return b.err
}

// Reply notes that a request was answered.
func (j *Journal) Reply(r Reply) error { return second(j.add(repliesFile, r)) }

// Event writes an acknowledged event down.
func (j *Journal) Event(e *Event) error { return second(j.add(eventsFile, e)) }

// Letter writes a dead letter down.
func (j *Journal) Letter(l *Letter) error { return second(j.add(lettersFile, l)) }

// Commit writes a commit down.
func (j *Journal) Commit(c *Commit) error { return second(j.add(commitsFile, c)) }

// Fault writes a fault down.
func (j *Journal) Fault(f *Fault) error { return second(j.add(faultsFile, f)) }

// Busy writes down how late timers were.
func (j *Journal) Busy(b Busy) error { return second(j.add(busyFile, b)) }

// Absence writes down when a subscription was deleted.
func (j *Journal) Absence(a *Absence) error { return second(j.add(absentFile, a)) }

// Sample writes down what a process holds.
func (j *Journal) Sample(s Sample) error { return second(j.add(sampleFile, s)) }

// Stray writes down what no endpoint should have got.
func (j *Journal) Stray(text string) error { return second(j.add(straysFile, text)) }

// Rows writes down what ClickHouse answered to RowsQuery.
func (j *Journal) Rows(tsv []byte) error {
	if err := os.WriteFile(filepath.Join(j.dir, rowsFile), tsv, 0o600); err != nil {
		return fmt.Errorf("writing the rows: %w", err)
	}
	return nil
}

func second(_ *batch, err error) error { return err }

// Close writes everything and closes the files. Nothing may be added after it.
func (j *Journal) Close() error {
	j.mu.Lock()
	files := j.files
	j.files = nil
	j.mu.Unlock()
	var errs []error
	for _, f := range files {
		close(f.wake)
		<-f.done
		errs = append(errs, f.f.Close())
	}
	return errors.Join(errs...)
}

// Load reads a run's folder.
func Load(dir string) (*Ledger, error) {
	l := &Ledger{Events: map[int]*Event{}}
	text, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	if err := json.Unmarshal(text, &l.Plan); err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	byN := map[int]*Post{}
	err = errors.Join(
		lines(dir, eventsFile, func(e *Event) { l.Events[e.Seq] = e }),
		lines(dir, postsFile, func(p *Post) {
			l.Posts = append(l.Posts, p)
			byN[p.N] = p
		}),
		lines(dir, repliesFile, func(r *Reply) {
			if p := byN[r.N]; p != nil {
				p.Replied = r.At
			}
		}),
		lines(dir, lettersFile, func(x *Letter) { l.Letters = append(l.Letters, x) }),
		lines(dir, commitsFile, func(x *Commit) { l.Commits = append(l.Commits, x) }),
		lines(dir, faultsFile, func(x *Fault) { l.Faults = append(l.Faults, x) }),
		lines(dir, busyFile, func(x *Busy) { l.Busy = append(l.Busy, *x) }),
		lines(dir, absentFile, func(x *Absence) { l.Absent = append(l.Absent, x) }),
		lines(dir, sampleFile, func(x *Sample) { l.Samples = append(l.Samples, *x) }),
		lines(dir, straysFile, func(x *string) { l.Strays = append(l.Strays, *x) }),
		l.readRows(dir),
	)
	slices.SortStableFunc(l.Posts, func(a, b *Post) int { return a.N - b.N })
	slices.SortStableFunc(l.Faults, func(a, b *Fault) int { return cmp.Compare(a.From, b.From) })
	return l, err
}

// lines reads a file of JSON lines; one that is not there has none.
func lines[T any](dir, name string, add func(*T)) error {
	return eachLine(filepath.Join(dir, name), func(line []byte) error {
		x := new(T)
		if err := json.Unmarshal(line, x); err != nil {
			return err
		}
		add(x)
		return nil
	})
}

func eachLine(path string, do func([]byte) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<20)
	n := 0
	for scan.Scan() {
		n++
		if err := do(scan.Bytes()); err != nil {
			return fmt.Errorf("reading %s, line %d: %w", path, n, err)
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

func (l *Ledger) readRows(dir string) error {
	path := filepath.Join(dir, rowsFile)
	if _, err := os.Stat(path); err != nil {
		return nil // there was no ClickHouse
	}
	l.HasRows = true
	return eachLine(path, func(line []byte) error {
		f := strings.Split(string(line), "\t")
		if len(f) != 6 {
			return fmt.Errorf("%d columns, want 6", len(f))
		}
		attempt, err1 := strconv.Atoi(f[2])
		resends, err2 := strconv.Atoi(f[5])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		l.Rows = append(l.Rows, Row{
			AttemptID: f[0], DeliveryID: f[1], Attempt: attempt, Outcome: f[3], Written: f[4] == "1", Resends: resends,
		})
		return nil
	})
}
