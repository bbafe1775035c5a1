package manpage

import (
	"regexp"
	"strings"
)

// page is a roff document under construction.
type page struct {
	roff []byte
}

// line writes one line of roff, whose text is already escaped.
func (p *page) line(s string) { p.roff = append(p.roff, s+"\n"...) }

// macro writes a macro with its arguments, which it escapes and quotes.
func (p *page) macro(name string, args ...string) {
	for _, a := range args {
		name += ` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`
	}
	p.line(name)
}

func (p *page) section(title string) { p.macro(".SH", title) }

// text writes paragraphs.
func (p *page) text(s string) { p.paragraphs(s, ".PP") }

// term writes an entry of a list; head is already roff.
func (p *page) term(head, text string) {
	p.line(".TP")
	p.line(head)
	p.paragraphs(text, ".IP")
}

// paragraphs writes paragraphs, with the given macro before each but the first.
// Lines that begin with a blank stay unchanged; the others are filled.
func (p *page) paragraphs(s, macro string) {
	if s == "" {
		return
	}
	literal, gap := false, false
	for l := range strings.Lines(s + "\n") {
		l = strings.TrimRight(l, " \n")
		if l == "" {
			gap = true
			continue
		}
		indented := l[0] == ' ' || l[0] == '\t'
		switch {
		case indented && !literal:
			p.line(macro + "\n.RS 4\n.nf")
		case !indented && literal:
			p.line(".fi\n.RE\n" + macro)
		case gap && literal:
			p.line("")
		case gap:
			p.line(macro)
		}
		literal, gap = indented, false
		if literal {
			p.line(escape(strings.TrimPrefix(l, "  ")))
		} else {
			p.line(emphasize(escape(l)))
		}
	}
	if literal {
		p.line(".fi\n.RE")
	}
}

// escape escapes what roff would interpret. All hyphens become minus signs, so
// that options can be searched for and copied.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

// emphasized matches, in escaped text, a long option or a reference to a man page.
var emphasized = regexp.MustCompile(`\\-\\-[a-z][a-z0-9]*(?:\\-[a-z0-9]+)*|[a-zA-Z_][\w.]*(?:\\-\w+)*(\(\d\))`)

// emphasize sets options and names of man pages in bold.
func emphasize(s string) string {
	return emphasized.ReplaceAllStringFunc(s, func(m string) string {
		name, section, found := strings.Cut(m, "(")
		if found {
			section = "(" + section
		}
		return `\fB` + name + `\fR` + section
	})
}
