"""Word lists of an invented industry; everything else is drawn letter by letter."""

from __future__ import annotations

__all__ = [
    "ADJECTIVES", "ATTRIBUTE_FAMILIES", "COLOURS", "FIRST_NAMES", "LINE_ITEMS", "MACHINES",
    "MATERIALS", "MONTHS", "NOUNS", "ORGANISATIONS", "PARTICIPLES", "PARTS", "QUALIFIERS",
    "RESOURCES", "SCOPES", "SCRIPTS", "SIZES", "SYLLABLES", "TABLE_COLUMNS", "VERBS",
]  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


QUALIFIERS = _words(
    "rated,nominal,maximum,minimum,peak,continuous,allowable,recommended,design,operating,"
    "permissible,average,normal,standby,initial,final,highest,lowest,total,typical,required,"
    "specified,measured,target,safe,main,auxiliary"
)
ATTRIBUTE_FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = tuple(
    (_words(nouns), _words(units))
    for nouns, units in (
        (
            "discharge pressure,suction pressure,inlet pressure,oil pressure,hydraulic pressure,"
            "relief pressure,line pressure,test pressure,outlet pressure,pressure,steam pressure,"
            "clamping pressure,working pressure",
            "bar,kPa,MPa,psi,mbar",
        ),
        (
            "flow rate,coolant flow,air flow,oil flow,water flow,capacity,throughput,"
            "delivery rate,feed water flow",
            "m3/h,L/min,L/h,t/h,parts per hour,kg/h",
        ),
        (
            "bearing temperature,oil temperature,outlet temperature,ambient temperature,"
            "surface temperature,storage temperature,temperature,winding temperature,"
            "furnace temperature,coolant temperature,trip temperature",
            "°C,K,°F,degrees",
        ),
        (
            "shaft speed,spindle speed,rotor speed,belt speed,feed rate,speed,line speed,fan speed,"
            "motor speed,cutting speed,conveyor speed",
            "rpm,m/s,mm/min,m/min",
        ),
        (
            "power,motor power,power consumption,input power,output power,heating power,"
            "shaft power",
            "kW,W,kVA,MW,hp",
        ),
        (
            "voltage,supply voltage,control voltage,current,starting current,trip current",
            "V,A,mA,kV",
        ),
        ("tightening torque,torque,bolt torque,shaft torque,breakaway torque", "Nm,kNm,lb-ft"),
        (
            "shaft clearance,belt deflection,gap,stroke,bore diameter,diameter,length,height,width,"
            "blade gap,wall thickness,rotor clearance,alignment tolerance,travel,depth,tool offset",
            "mm,cm,m,µm,inches",
        ),
        (
            "weight,mass,load,lifting capacity,payload,grease amount,net weight,shipping weight",
            "kg,g,t,N,kN",
        ),
        (
            "tank volume,oil volume,sump capacity,coolant volume,volume,reservoir capacity",
            "L,mL,m3,gallons",
        ),
        (
            "service interval,warm-up time,cycle time,inspection interval,oil change interval,"
            "cooling time,response time,warranty period,bearing life,start delay,"
            "lubrication interval,calibration interval,shelf life,drying time,lead time",
            "hours,days,weeks,months,minutes,seconds,years,shifts",
        ),
        (
            "vibration level,vibration limit,noise level,efficiency,oil viscosity,frequency,"
            "humidity,hardness,pH value,duty cycle,filter rating,moisture content,scrap rate",
            "mm/s,dB,%,cSt,Hz,HRC,ppm,microns",
        ),
    )
)
MACHINES = _words(
    "pump,motor,compressor,valve,press,conveyor,gearbox,boiler,lathe,robot,chiller,turbine,"
    "generator,mixer,furnace,crane,fan,filter unit,heat exchanger,drill,mill,extruder,separator,"
    "centrifuge,blower,actuator,cutter,packer,dryer,welder,sensor,controller,tank,reactor,lift,"
    "saw,grinder,cooling tower,feeder,palletizer,inverter,transformer,line,machine,unit,station"
)
PARTS = _words(
    "seal,bearing,impeller,shaft,coupling,belt,filter,gasket,rotor,stator,cover,housing,nozzle,"
    "piston,cylinder,hose,chain,brake,fuse,relay,sensor,probe,cable,guard,panel,blade,roller,"
    "spring,bolt,flange,manifold,strainer,bearing cap,drive belt,oil filter,air filter,"
    "control board,limit switch,pressure gauge,wear ring,mechanical seal,cutting head,"
    "cooling jacket,inlet screen,drain plug,vent,hatch,tool holder,clamp,gear"
)
MATERIALS = _words(
    "cast iron,stainless steel,carbon steel,bronze,aluminium,FKM rubber,nitrile rubber,ceramic,"
    "brass,titanium,graphite,PTFE,nylon,copper,tungsten carbide,silicon carbide,hardened steel,"
    "polyurethane,epoxy,glass fibre"
)
COLOURS = _words(
    "red,blue,green,yellow,grey,black,white,orange,silver,brown,purple,light blue,dark green,"
    "signal red"
)
ADJECTIVES = _words(
    "low,high,worn,blocked,loose,damaged,dirty,open,closed,cracked,wet,dry,hot,cold,overheated,"
    "leaking,faulty,missing,broken,unstable,excessive,uneven,clean,empty,full,old,new,front,rear,"
    "left,right,upper,lower,inner,outer,heavy,light,fine,coarse,soft,hard,sharp,smooth,rough,thin,"
    "thick,long,short,deep,narrow,wide,safe,quick,slow,early,late,weekly,daily,monthly,central,"
    "local,remote,manual,automatic,digital,spare,double,single,public,private,active,standard,"
    "global,internal,external,default,custom,net,gross,current,deferred,annual,shared,reserved"
)
NOUNS = _words(
    "oil,water,air,steam,gas,coolant,grease,dust,noise,power,signal,alarm,lamp,button,key,switch,"
    "door,window,wall,floor,roof,bench,table,shelf,rack,store,room,hall,bay,yard,dock,gate,office,"
    "workshop,tool,wrench,hammer,gauge,meter,brush,cloth,pump,tank,pipe,hose,line,wire,plate,sheet,"
    "frame,base,stand,support,bracket,wheel,axle,arm,hook,rope,bucket,barrel,drum,bottle,bag,box,"
    "pallet,crate,label,tag,form,report,log,list,plan,schedule,manual,drawing,standard,rule,limit,"
    "level,value,rate,ratio,angle,point,edge,corner,surface,layer,coating,paint,film,foam,powder,"
    "sand,stone,metal,steel,iron,glass,paper,wood,plastic,rubber,fibre,acid,salt,fuel,diesel,heat,"
    "fire,smoke,leak,crack,fault,error,shock,start,test,check,repair,service,cleaning,training,"
    "safety,quality,design,order,batch,sample,product,part,piece,unit,team,crew,shift,manager,"
    "engineer,operator,inspector,supplier,customer,plant,factory,site,market,river,town,bridge,"
    "road,rail,ship,train,truck,engine,battery,charger,screen,camera,laser,magnet,coil,core,cell,"
    "code,program,data,network,server,backup,memory,clock,timer,counter,history,museum,company,"
    "school,library,island,mountain,forest,garden,field,animal,bird,fish,tree,fruit,bread,milk,"
    "book,song,prize,war,king,law,court,bank,tax,price,cost,budget,account,request,instance,"
    "function,volume,cluster,bucket,stream,policy,role,user,group,region,zone,endpoint,snapshot,"
    "queue,topic,channel,device,job,model,dataset,index,event,asset,income,revenue,expense,share,"
    "dividend,loan,lease,goodwill,interest,virus,vaccine,dose,patient,symptom,protein,cell,trial"
)
VERBS = _words(
    "close,open,remove,clean,inspect,replace,tighten,loosen,drain,fill,check,lubricate,disconnect,"
    "connect,lift,lower,lock,unlock,mark,measure,record,test,flush,reset,start,stop,install,align,"
    "adjust,vent,wipe,dry,heat,cool,press,pull,push,turn,rotate,label,weigh,store,seal,cover,"
    "isolate,purge,release,secure,calibrate,repair"
)
PARTICIPLES = _words(
    "closed,opened,removed,cleaned,inspected,replaced,filled,checked,lubricated,measured,tested,"
    "flushed,reset,aligned,adjusted,calibrated,repaired,weighed,sealed,isolated"
)
FIRST_NAMES = _words(
    "Anna,Ben,Carla,David,Elena,Felix,Grace,Hugo,Ines,Jonas,Karin,Leo,Maria,Nils,Olga,Peter,Rosa,"
    "Stefan,Tara,Uwe,Vera,Walter,Yusuf,Zoe,Amir,Bruno,Chen,Dina,Emil,Farah"
)
SYLLABLES = _words(
    "ba,be,bo,da,de,do,fa,fe,ga,go,ha,he,ka,ke,ko,la,le,li,lo,ma,me,mi,mo,na,ne,no,pa,pe,po,ra,re,"
    "ri,ro,sa,se,so,ta,te,ti,to,va,ve,vo,za,zo,xe,qu,cor,ver,tan,mar,sel,gor,fen,lin,dor,kal,bren,"
    "stel,hol,wen,ster,ton,burg,dal,vex,nor,tek,lux,mat,rin,sol,pra,tri,gra,kel"
)
ORGANISATIONS = _words(
    "Works,Industries,Systems,Group,Tools,Drives,Engineering,Foundry,Steel,Pumps,Controls"
)
MONTHS = _words(
    "January,February,March,April,May,June,July,August,September,October,November,December"
)
RESOURCES = _words(
    "instances,requests,functions,volumes,clusters,buckets,streams,policies,roles,users,groups,"
    "tags,keys,rules,snapshots,queues,topics,channels,devices,jobs,models,datasets,events,assets,"
    "connections,nodes,files,tables,columns,filters,alarms,reports,certificates,pipelines,stores,"
    "listeners,targets,operators,sensors,orders,batches,pallets,shifts,licences,seats,layers"
)
SCOPES = _words(
    "account,Region,user,group,cluster,instance,project,device,second,minute,day,month,job,plant,"
    "line,shift,queue,table,model,function,volume,load balancer,target group,customer"
)
TABLE_COLUMNS = _words(
    "Description,Default,Limit,Value,Type,Required,Price,Status,Unit,Region,vCPU,Memory (GiB),"
    "Storage (GB),Adjustable,Notes,Owner,Supplier,Location,Version,Maximum,Minimum,Default value,"
    "Quantity,Stock,Code,Category,Priority,Interval,Next check,Class,Size,Length (mm),Weight (kg),"
    "Pressure (bar),Power (kW),Cost per hour,Instance type,Protocol,Port,Timeout (seconds),Format,"
    "Encoding,Can be changed,Supported,Permission,Responsible,Colour,Material,Part number,"
    "Serial number,Order no.,Delivery time,Capacity (L),Flow (m3/h),Voltage (V),Current (A),"
    "Remarks,Example,Source,Action,Result,Threshold,Alarm,Comment,Length,Range,Score,Share,Change,"
    "Total,Balance,Rate,Term,Level,Dose,Duration,Outcome,Valid from,Valid until,Contact,Department,"
    "Baseline performance,Burst duration,Read rate,Write rate,Throughput (MiB/s),Free tier"
)
SIZES = _words("nano,micro,small,medium,large,xlarge,xlarge,metal,mini,standard,basic,plus")
LINE_ITEMS = _words(
    "revenue,net income,operating expenses,cost of sales,gross profit,deferred tax assets,goodwill,"
    "inventories,raw materials,trade receivables,cash and cash equivalents,interest expense,"
    "share-based compensation,research and development,finished goods,work in progress,"
    "lease liabilities,dividends declared,capital expenditure,provisions,other income,"
    "depreciation and amortization,borrowings,income taxes,operating margin,employees,"
    "accrued liabilities,pension costs,foreign currency losses,restructuring charges"
)
SCRIPTS: tuple[str, ...] = (
    "αβγδεζηθικλμνξοπρστυφχψω",
    "абвгдежзийклмнопрстуфхцчшыэюя",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "कखगघचछजझटठडढतथदधनपफबभमयरलवशसह",
    "日本東京電力水圧油温度速機械部品時間長高低大小中新古前後左右上下",
    "가나다라마바사아자차카타파하고노도로모보소오조초코토포호",
    "äöüßéèêàçñåøæœřžšćłńęąığşő",
)
"""Alphabets from which words of other scripts are drawn; they are copied byte by byte."""
