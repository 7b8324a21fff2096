# Pictures of the curves that `make bench` has measured: gnuplot benches/curves.gp
data = "target/curves/"
set terminal svg size 640,420 font "sans-serif,13" background "white"
set logscale xy
set grid
set key left top
set ylabel "milliseconds"
set style data linespoints

set xlabel "waiting subscribers, by poll"
set output "docs/crowd-poll.svg"
plot data."crowd-poll.dat" using 1:2 title "NovComet, Apache", \
     "" using 1:3 title "NovComet, lighttpd", \
     data."crowd-floor.dat" using 1:2 dashtype 2 title "a C CGI, lighttpd", \
     data."crowd-poll.dat" using 1:5 title "Pushpin", \
     "" using 1:4 title "nchan"

set xlabel "waiting subscribers, by stream"
set output "docs/crowd-stream.svg"
plot data."crowd-stream.dat" using 1:2 title "NovComet, Apache", \
     "" using 1:3 title "NovComet, lighttpd", \
     "" using 1:5 title "Pushpin", \
     "" using 1:4 title "nchan"

set xlabel "waiting subscribers, without a server"
set output "docs/held.svg"
plot data."held.dat" using 1:2 title "the median of them has answered", \
     "" using 1:3 title "the last of them"

set yrange [0.2:20]
set xlabel "topics in the directory"
set output "docs/topics.svg"
plot data."topics.dat" using 1:2 title "publish", \
     "" using 1:3 title "publish to a new topic", \
     "" using 1:4 title "look"

# A log without messages is drawn at 1.
set xlabel "messages of 100 bytes in the log"
set output "docs/log.svg"
plot data."log.dat" using ($1 < 1 ? 1 : $1):2 title "publish one more", \
     "" using ($1 < 1 ? 1 : $1):3 title "look at the last", \
     "" using ($1 < 1 ? 1 : $1):4 title "replay all"
