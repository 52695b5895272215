"""The demo model's long answer in both languages: an essay, long enough to reload the page."""

ENGLISH = """# Why a streamed answer breaks, and how to keep it whole

A long answer for its own sake: about 1,500 words, slow enough to reload the page in the middle, \
to close the lid, to open a second tab, or to press Stop. While you try that, it may as well say \
something useful.

## 1. The answer that takes its time

Most of the web was made for answers that are ready before they are sent. A page, an image, a row \
of a table: the server has it, the server sends it, and if the connection drops, the browser asks \
again and gets the same thing. Asking twice costs a little time and nothing else.

A language model breaks that bargain. Its answer takes seconds or minutes, it is made word by \
word, and it is shown while it is being made, since nobody likes to look at an empty page. Asking \
twice does not give the same answer, and costs as much as the first time. So between the first \
word and the last, something that someone has paid for exists in one copy only. That copy is on \
its way through a handful of machines, any of which may go away.

## 2. Where it breaks

It helps to be exact about what can fail, because each failure needs its own remedy.

- **The reader leaves.** A tab is closed, a page is reloaded, a telephone goes to sleep. This is \
not even a fault: it is what people do.
- **The connection drops.** A train enters a tunnel; a laptop changes from one network to another. \
Both ends are well, and neither knows for a while that the other is out of reach.
- **Something in between gives up.** Proxies close connections that have been quiet for a minute. \
Some gather the whole answer before they pass on the first byte of it.
- **The server stops.** It is updated, or runs out of memory, or someone pulls the wrong plug.
- **The model's server stops.** It has its own proxies, its own limits and its own wrong plugs.

In the usual arrangement all five end the same way. The handler that answers the browser also \
reads from the model; when either side goes, the other goes with it, and half an answer is lost.

## 3. Separate the making from the watching

The first remedy is a matter of ownership. The task that asks the model must not belong to the \
connection that shows the answer. It belongs to the *turn*: one question and the making of its \
answer. A connection is then only a *viewer*. Viewers come and go; there may be none, or five. The \
turn takes no notice.

This sounds like a detail, and changes everything around it. Closing a tab is no longer a way to \
stop a model, so there has to be a real Stop, one that closes the connection to the model and \
keeps the text so far. A reload is no longer a new question, so a turn needs a name that the page \
can ask for again. And since no reader slows the making down, something has to hold what has been \
made and not yet been read.

## 4. Write down the bytes, not the meaning

That something is a log. It would be natural to store the words and to generate the event stream \
from them again for each viewer. Holdline stores the event stream itself: the log of a turn is one \
string in Redis that holds the very bytes that go over the connection.

The gain is that there is nothing left to get wrong. A frame is encoded once. A viewer who was \
there from the start, one who joined late and one who reconnected all receive slices of the same \
string. And the question “where was I?” has a plain number for its answer: how many bytes of it \
you have had.

```text
GET /api/chat_stream/?message=…
Last-Event-ID: 5TqXk0dZr1mPw8yLc3aVhQ.1482
```

The browser sends that header by itself when it reconnects; the standard for event streams has \
asked for it for more than a decade. All that is needed on the other side is to read the string \
from byte 1,482 on.

## 5. First the log, then the screen

There is an order to keep. If a word were shown first and stored afterwards, a crash between the \
two would leave a word on somebody's screen that the server has never heard of. After a reload the \
answer might go on differently, and the reader would wonder which of the two had been a dream.

Databases met this question half a century ago and answered it with the write-ahead log: first \
write down what you are going to do, then do it. For an answer that means that a frame goes to a \
viewer only after Redis has it. What you have seen is then always something that the server can \
show you again.

Would a round trip for every word not be slow? One at a time it would be. But while one group of \
frames is on its way to Redis, the next one gathers, from all the turns that are running, and goes \
as soon as the first is acknowledged. With one reader a group is a word or two. With a thousand it \
is a thousand words, for the same single round trip. The busier it gets, the less each word costs.

## 6. Who may write

A log wants exactly one writer. As long as there is one process this is no question. With several, \
there comes the day when a process is not dead but merely slow. It is paused for ten seconds, \
taken for lost and replaced by another. Then it wakes up and continues to write as if nothing had \
happened.

The remedy has two parts. A *lease* is the right to append for a limited time, renewed as long as \
its holder is well. A *fence* is a number that grows each time the lease changes hands. Every \
append names its fence, and Redis refuses one that is smaller than the latest it has seen. The \
sleeper may wake up when it likes: its first word is turned away, and it learns that the turn is \
no longer its own.

| | Says | Protects against |
| --- | --- | --- |
| Lease | who may write now | a writer that has died |
| Fence | whose turn has passed | a writer that only seemed to |
| Offset | where the bytes belong | a command that is sent twice |

The third row deserves a word. A command may reach Redis and its reply be lost; the client, being \
careful, sends it again. If the command said “append this”, the words would appear twice. It says \
“append this *at byte 1,482*”, and the second time Redis sees that they are there already.

## 7. Asked once

The same care is due to the question. A browser that reconnects sends its request again, to the \
same address, with the same question in it. Taken literally, it asks the model a second time, and \
pays a second time.

So the page gives each turn an id that it has chosen before it asks. The first request with that \
id begins the turn; any other attaches to it. It does not matter which tab it comes from, which \
process receives it, or whether both arrive in the same millisecond. Beginning a turn is one \
atomic step, and only one of them can be first.

## 8. The end must be explicit

How do you know that an answer is complete? Not by the connection having closed, because that is \
exactly what happens when it breaks. A stream that just ends may be finished or may be cut short, \
and at the level of bytes the two can look alike.

A finished answer therefore ends with a special frame, which carries the whole text once more, so \
that the page can render it cleanly from beginning to end. A failed one ends with a frame that \
names the error and states whether another try is worthwhile. If neither has come, the stream is \
not over, and the browser reconnects. The absence of an end is never read as an end.

## 9. What it costs

None of this is free. There is one more program to run, although Holdline brings an embedded Redis \
along when you have none. Each word waits for one round trip inside your own network, usually well \
below a millisecond, while the model takes twenty or more to think of it. And logs take room, so a \
finished one is dropped after a while: the answer itself is by then in the history, and a viewer \
who returns later gets it whole.

What you get for it is the absence of something. No spinner that never stops. No half sentence \
that is gone after a reload. No second bill for the same question. A chat that works as people \
have always assumed that it does.

## 10. See for yourself

If you have read this far without touching anything, this is the moment:

1. Ask for this long answer again.
2. While it is being written, reload the page.
3. Open the same page in a second window and watch both.
4. Press Stop in one, and look at the other.

In each case the text should be where you left it, with no word missing and none repeated. That is \
all there is to it, and it is the whole point."""

CHINESE = """# 流式回答为什么会中断，如何不丢失

这是一篇为长而长的回答，慢到足够您在中途刷新页面、合上电脑、再开一个标签页，或者按下停止。既然要\
等，不妨顺便说点有用的。

## 一、需要时间的回答

互联网的大部分内容，都是先准备好，再发送。一个页面、一张图片、表格里的一行：服务器有，就发出去；线\
路断了，浏览器再要一次，得到的还是同样的东西。多问一次，不过多花一点时间。

语言模型打破了这个约定。它的回答需要几秒到几分钟，一个词一个词地生成，一边生成一边显示，因为谁也不\
愿意对着空白的页面等。再问一次，得到的不是同一个回答，花费却一样多。于是在第一个词和最后一个词之\
间，有这么一段路：一件已经付过钱的东西，唯一的一份正在几台机器之间传递，而其中任何一台都可能离开。

## 二、会断在哪里

最好说得准确一些，因为每一种故障都需要自己的办法。

- **读者走了。** 关掉标签页，刷新页面，手机进入休眠。这甚至算不上故障，人本来就是这样用的。
- **线路断了。** 列车进了隧道，笔记本换了一个网络。两头都好好的，却要过一阵才知道对方已经够不着了。
- **中间有谁放弃了。** 代理会关闭安静了一分钟的连接；有的代理要攒齐整个回答，才肯放出第一个字节。
- **服务器停了。** 升级，内存不足，或者有人拔错了插头。
- **模型的服务器停了。** 它也有自己的代理、自己的限额和自己的插头。

在通常的做法里，这五种情况的结局都一样：应答浏览器的那段程序同时也在读模型，一边断了，另一边跟着\
断，半个回答就此丢失。

## 三、把生成与观看分开

第一个办法关乎归属。去问模型的任务，不应该属于显示回答的那条连接，而应该属于这*一轮*问答（turn）。\
连接只是*观众*。观众来来去去，可以一个也没有，也可以有五个，这一轮问答并不在意。

这听起来是个细节，却改变了周围的一切。关掉标签页不再能让模型停下，所以必须有一个真正的停止：它关闭\
通往模型的连接，并保留已经写出的内容。刷新不再是一个新问题，所以一轮问答需要一个页面能够再次说出的\
名字。既然没有读者会拖慢生成，就必须有个地方，存放已经生成而还没有人读的内容。

## 四、记下字节，而不是意思

这个地方就是日志。自然的想法是保存文字，再为每个观众重新生成事件流。Holdline 保存的是事件流本身：一\
轮问答的日志，是 Redis 里的一个字符串，里面就是线路上传送的那些字节。

好处是再没有什么可以出错。每一帧只编码一次。一开始就在的观众、来晚的观众、去而复返的观众，拿到的都\
是同一个字符串的片段。而“我看到哪里了？”这个问题，答案只是一个数字：您已经收到了多少字节。

```text
GET /api/chat_stream/?message=…
Last-Event-ID: 5TqXk0dZr1mPw8yLc3aVhQ.1482
```

浏览器重连时会自己带上这个请求头，事件流的标准十多年前就这样规定了。另一头要做的，只是从第 1482 个\
字节往下读。

## 五、先进日志，再上屏幕

这里有个先后。如果先显示一个词，后保存，那么在两者之间崩溃，就会有人的屏幕上留着一个服务器从未听说\
过的词。刷新之后，回答也许会换一种说法，读者会疑心哪一个才是梦。

数据库半个世纪前就遇到过这个问题，答案是预写日志：先写下要做什么，再去做。对于回答，就是等 Redis 有\
了这一帧，观众才会收到它。于是您看到过的，服务器总能再给您看一遍。

每个词都要等一次往返，岂不是很慢？一个一个来，确实慢。但一组帧在去 Redis 的路上时，下一组正在聚集，\
来自所有正在进行的问答，前一组一得到确认就出发。只有一位读者时，一组是一两个词；有一千位读者时，一\
组是一千个词，往返还是那一次。越忙，每个词的代价越小。

## 六、谁可以写

日志只能有一个写入者。只有一个进程时，这不成问题。有好几个进程时，总有一天会有一个进程没有死，只是\
慢：停顿了十秒，被当作已经丢失，由别的进程接替，然后醒过来，若无其事地继续写。

办法分两部分。*租约*是在有限时间内追加的权利，持有者健在，就不断续期。*隔离令牌*（fencing token）是\
一个数字，租约每换一次手就增大一次。每次追加都报出自己的令牌，小于已知最大值的，Redis 一律拒绝。沉\
睡者什么时候醒来都行：它写的第一个词就会被退回，它便知道这一轮问答已经不归它了。

| | 说明 | 防备 |
| --- | --- | --- |
| 租约 | 现在谁可以写 | 已经死去的写入者 |
| 隔离令牌 | 谁的时候已经过了 | 看似死去的写入者 |
| 偏移 | 字节应该在哪里 | 发送了两次的命令 |

第三行值得多说一句。命令可能到了 Redis，回复却丢了；谨慎的客户端会再发一次。如果命令说的是“追加这\
些”，文字就会出现两遍。而它说的是“*在第 1482 个字节处*追加这些”，于是第二次，Redis 看到它们已经在那\
里了。

## 七、只问一次

对待问题也要同样小心。重连的浏览器会把请求再发一遍，同样的地址，同样的问题。如果照字面理解，就会再\
问一次模型，再付一次钱。

所以页面在提问之前，先为这一轮问答定一个自己的编号。带着这个编号的第一个请求开始问答，其余的都只是\
接上去。请求来自哪个标签页，由哪个进程收到，是不是在同一毫秒到达，都没有关系，因为开始一轮问答是一\
个原子步骤，只有一个能是第一。

## 八、结束必须说出来

怎样知道一个回答是完整的？不能看连接是否关闭，因为断线时它恰恰也会关闭。一个就此停住的流，也许是说\
完了，也许是被切断了，在字节的层面上，两者可以一模一样。

所以说完的回答以一个专门的帧结束，它把全文再带一遍，好让页面从头到尾干净地渲染一次。失败的回答以另\
一种帧结束，说明出了什么问题，值不值得再试。两者都没有来，流就没有结束，浏览器会重连。没有结束，从\
来不被当作结束。

## 九、代价

这些都不是白来的。要多运行一个程序，不过您没有 Redis 的时候，Holdline 会自己带一个。每个词要等一次\
内部网络的往返，通常远不到一毫秒，而模型想出这个词要二十毫秒以上。日志要占地方，所以结束之后过一阵\
就会删除：那时回答早已在历史里，晚来的人一次拿到全文。

换来的是“没有”：没有永远转下去的圆圈，没有刷新之后消失的半句话，没有为同一个问题付的第二次钱。聊天\
的样子，本来就是大家一直以为的样子。

## 十、请您亲自看看

如果您一口气读到了这里，什么都没有碰，那么现在正是时候：

1. 再要一次这篇长文。
2. 在它写到一半的时候，刷新页面。
3. 在另一个窗口打开同一个页面，两边一起看。
4. 在一边按下停止，看看另一边。

每一次，文字都应该停在您离开的地方，一个字不少，一个字不重。要说的就是这些，而这正是全部的意义。"""
