package translate

import "slices"

// chunkSize is the most that one segment carries: with its headers it has to fit a
// packet of 64 KiB.
const chunkSize = 64<<10 - 128

const (
	// maxChunks may be on their way to the namespace: of a connection, and of all.
	maxChunks    = 16
	maxAllChunks = 1024
	// sparedChunks are kept for the next connection.
	sparedChunks = 64
	// refill is the least room in a chunk that has data to put more into it.
	refill = chunkSize / 2
)

// chunk has bytes in the order of the sequence.
type chunk struct {
	data [chunkSize]byte
	from int // what comes before has been acknowledged
	to   int
}

// chunkPool is where connections take chunks from.
type chunkPool struct {
	spare []*chunk
	used  int
}

func (p *chunkPool) take() *chunk {
	if p.used >= maxAllChunks {
		return nil
	}
	p.used++
	if n := len(p.spare); n > 0 {
		k := p.spare[n-1]
		p.spare = p.spare[:n-1]
		k.from, k.to = 0, 0
		return k
	}
	return &chunk{}
}

func (p *chunkPool) give(k *chunk) {
	p.used--
	if len(p.spare) < sparedChunks {
		p.spare = append(p.spare, k)
	}
}

// sentBytes is what a connection has sent to the namespace and may have to repeat.
type sentBytes struct {
	chunks []*chunk
	size   int
}

// room returns the chunk to read more bytes into; nil if there can be none now.
func (s *sentBytes) room(p *chunkPool) *chunk {
	if n := len(s.chunks); n > 0 {
		if last := s.chunks[n-1]; chunkSize-last.to >= refill {
			return last
		}
		if n == maxChunks {
			return nil
		}
	}
	k := p.take()
	if k != nil {
		s.chunks = append(s.chunks, k)
	}
	return k
}

// tidy gives the newest chunk back if nothing was read into it.
func (s *sentBytes) tidy(p *chunkPool) {
	if n := len(s.chunks); n > 0 && s.chunks[n-1].from == s.chunks[n-1].to {
		p.give(s.chunks[n-1])
		s.chunks = s.chunks[:n-1]
	}
}

// acknowledge forgets the first n bytes, or all if there are fewer.
func (s *sentBytes) acknowledge(p *chunkPool, n int) {
	n = min(n, s.size)
	s.size -= n
	done := 0
	for _, k := range s.chunks {
		step := min(n, k.to-k.from)
		k.from += step
		n -= step
		if k.from < k.to {
			break
		}
		p.give(k)
		done++
	}
	if done > 0 {
		s.chunks = slices.Delete(s.chunks, 0, done)
	}
}

// first returns the oldest bytes, for a segment.
func (s *sentBytes) first() []byte {
	if len(s.chunks) == 0 {
		return nil
	}
	k := s.chunks[0]
	return k.data[k.from:k.to]
}
