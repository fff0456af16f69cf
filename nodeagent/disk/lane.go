package disk

import (
	"os"
	"sync"

	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// lane does the new volume's I/O in order, beside the old one's.
type lane struct {
	file *os.File
	jobs chan func() error
	free chan []byte
	done chan struct{}

	mu  sync.Mutex
	err error // the first that nobody has asked for
}

// laneBuffers are in use at a time: one is read, one is compared or on its way,
// others wait.
const laneBuffers = 4

func startLane(f *os.File) *lane {
	l := &lane{file: f, jobs: make(chan func() error, laneBuffers), free: make(chan []byte, laneBuffers), done: make(chan struct{})}
	for range laneBuffers {
		l.free <- volume.AlignedBuffer(quietChunk)
	}
	go func() { // ends with stop
		defer close(l.done)
		for job := range l.jobs {
			if err := job(); err != nil {
				l.mu.Lock()
				if l.err == nil {
					l.err = newError{err}
				}
				l.mu.Unlock()
			}
		}
	}()
	return l
}

// stop waits for what is under way.
func (l *lane) stop() {
	close(l.jobs)
	<-l.done
}

// wait ends when everything that was asked for is done.
func (l *lane) wait() error {
	reached := make(chan struct{})
	l.jobs <- func() error { close(reached); return nil }
	<-reached
	return l.failed()
}

func (l *lane) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// buffer is one of n bytes, to be given back.
func (l *lane) buffer(n int) ([]byte, error) {
	if err := l.failed(); err != nil {
		return nil, err
	}
	return (<-l.free)[:n], nil
}

func (l *lane) give(b []byte) { l.free <- b[:quietChunk] }

func (l *lane) read(b []byte, off int64) <-chan error {
	out := make(chan error, 1)
	l.jobs <- func() error {
		_, err := l.file.ReadAt(b, off)
		out <- err
		return nil
	}
	return out
}

// write gives the buffer back when it is done.
func (l *lane) write(b []byte, off int64) {
	l.jobs <- func() error {
		_, err := l.file.WriteAt(b, off)
		l.give(b)
		return err
	}
}
